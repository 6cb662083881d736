#pragma once

#include <volk.h>

namespace q8ta::vulkan {

class Device;

/// Descriptor sets of storage buffers for one batch of work, reset together.
class DescriptorPool {
 public:
  explicit DescriptorPool(Device& device) : device_(device) {}
  ~DescriptorPool();
  DescriptorPool(const DescriptorPool&) = delete;
  DescriptorPool& operator=(const DescriptorPool&) = delete;

  /// Takes back all sets (the GPU must be done with them) and makes room for `sets` new ones.
  void reset(uint32_t sets);

  VkDescriptorSet allocate(VkDescriptorSetLayout layout);

 private:
  Device& device_;
  VkDescriptorPool pool_ = VK_NULL_HANDLE;
  uint32_t capacity_ = 0;
};

}  // namespace q8ta::vulkan
