#pragma once

#include <span>
#include <vector>

#include "vulkan/command.h"

namespace q8ta::vulkan {

/// Knows which bytes were touched since the last barrier, so that one is recorded only where a hazard is.
class HazardTracker {
 public:
  /// True if a dispatch with these bindings must wait for an earlier one: the caller then records a barrier
  /// over all of the batch so far. The bindings count as touched from now on.
  bool needs_barrier(std::span<const Binding> bindings);

  /// The next dispatch must wait, whatever it touches.
  void touch_everything() { everything_ = true; }

  void reset();

 private:
  bool conflicts(const Binding& binding) const;

  std::vector<BufferRange> read_;
  std::vector<BufferRange> written_;
  bool everything_ = false;
};

}  // namespace q8ta::vulkan
