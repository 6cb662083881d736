#pragma once

#include <volk.h>

#include <span>

namespace q8ta::vulkan {

class Device;

/// Tells when the GPU is done with a submission. One submission at a time.
class Fence {
 public:
  explicit Fence(Device& device);
  /// Waits for what was submitted.
  ~Fence();
  Fence(const Fence&) = delete;
  Fence& operator=(const Fence&) = delete;

  /// vkQueueSubmit (Device::submit), with this fence. If it throws, nothing was submitted.
  void submit(std::span<const VkCommandBuffer> commands);
  void submit(VkCommandBuffer commands) { submit(std::span(&commands, 1)); }

  /// Whether something was submitted that nobody has waited for.
  bool pending() const { return pending_; }

  /// Whether the GPU is done. Throws Error if that cannot be known now, DeviceLost if it never will be.
  bool passed();

  /// Returns when the GPU is done. A driver that is short of memory is asked again for a while: afterwards,
  /// or when the device is lost, this throws DeviceLost. Nothing is pending then.
  void wait();

 private:
  VkResult wait_once();

  Device& device_;
  VkFence fence_ = VK_NULL_HANDLE;
  bool pending_ = false;
  bool signalled_ = false;
};

}  // namespace q8ta::vulkan
