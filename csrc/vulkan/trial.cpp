#include "vulkan/trial.h"

#include "vulkan/device.h"

namespace q8ta::vulkan {
namespace {

constexpr uint32_t kAll = 0;  // the pair of timestamps around everything

}  // namespace

Trial::Trial(Device& device)
    : device_(device), submission_(device, 1), scratch_(device, MemoryUse::device_local) {}

void Trial::dispatch(const Pipeline& pipeline, std::initializer_list<Binding> bindings,
                     std::span<const std::byte> push_constants, uint32_t workgroups,
                     const DispatchLabel& label) {
  commands_.push_back(
      dispatch_command(device_, pipeline, bindings, push_constants, workgroups, label.kernel));
}

void Trial::copy(const BufferRange& from, const BufferRange& to, const DispatchLabel& /*label*/) {
  commands_.push_back(copy_command(from, to));
}

void Trial::record() {
  submission_.begin(static_cast<uint32_t>(commands_.size()));
  VkCommandBuffer buffer = submission_.commands();
  // What others have queued is not part of the time.
  record_barrier(device_, buffer, kDeviceWork, kDeviceWork);
  submission_.timestamps().record_begin(buffer, kAll);
  BoundState bound;
  for (const Command& command : commands_) {
    record_barrier(device_, buffer, kDeviceWork, kDeviceWork);
    record_command(device_, buffer, submission_.descriptors(), bound, command);
  }
  submission_.timestamps().record_end(buffer, kAll);
  record_barrier(device_, buffer, kDeviceWork, kHostReads);
}

double Trial::run() {
  record();
  const Elapsed elapsed = submission_.run(kAll);
  commands_.clear();
  scratch_.reset();
  return elapsed.gpu_us.value_or(elapsed.wall_us);
}

}  // namespace q8ta::vulkan
