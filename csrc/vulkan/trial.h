#pragma once

#include <vector>

#include "vulkan/arena.h"
#include "vulkan/recorder.h"
#include "vulkan/submission.h"

namespace q8ta::vulkan {

/// Work that is tried out, by itself: recorded, run and waited for outside of streams and of profiles. Every
/// command waits for the one before it.
class Trial final : public Recorder {
 public:
  explicit Trial(Device& device);

  Device& device() override { return device_; }
  void dispatch(const Pipeline& pipeline, std::initializer_list<Binding> bindings,
                std::span<const std::byte> push_constants, uint32_t workgroups,
                const DispatchLabel& label) override;
  void copy(const BufferRange& from, const BufferRange& to, const DispatchLabel& label) override;
  BufferRange scratch(VkDeviceSize bytes) override { return scratch_.allocate(bytes).range; }

  /// Runs what was recorded since the last run; the host can read its results afterwards. Returns its
  /// microseconds by the device's clock, on a device without timestamps by the host's.
  double run();

 private:
  void record();

  Device& device_;
  Submission submission_;
  Arena scratch_;
  std::vector<Command> commands_;
};

}  // namespace q8ta::vulkan
