#pragma once

#include <volk.h>

namespace q8ta::vulkan {

class Device;

/// Command buffers that can be recorded again and again.
class CommandPool {
 public:
  explicit CommandPool(Device& device);
  ~CommandPool();
  CommandPool(const CommandPool&) = delete;
  CommandPool& operator=(const CommandPool&) = delete;

  /// Freed with the pool, if not before.
  VkCommandBuffer allocate();
  void free(VkCommandBuffer commands);

 private:
  Device& device_;
  VkCommandPool pool_ = VK_NULL_HANDLE;
};

/// A command buffer while it is recorded. Without end() what was recorded is given up, and the command buffer
/// can be recorded anew.
class CommandRecording {
 public:
  CommandRecording(Device& device, VkCommandBuffer commands, VkCommandBufferUsageFlags usage = 0);
  ~CommandRecording();
  CommandRecording(const CommandRecording&) = delete;
  CommandRecording& operator=(const CommandRecording&) = delete;

  /// Throws if the driver could not record all of it; then, too, it is over.
  void end();

 private:
  Device& device_;
  VkCommandBuffer commands_;
  bool ended_ = false;
};

}  // namespace q8ta::vulkan
