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

  void reset();

 private:
  struct Access {
    BufferRange range;
    bool written;
  };
  std::vector<Access> since_barrier_;
};

}  // namespace q8ta::vulkan
