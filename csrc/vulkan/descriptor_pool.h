#pragma once

#include <volk.h>

#include <vector>

namespace q8ta::vulkan {

class Device;

/// Descriptor sets of storage buffers for one batch of work; grows by whole pools, all reset together.
class DescriptorPool {
 public:
  explicit DescriptorPool(Device& device) : device_(device) {}
  ~DescriptorPool();
  DescriptorPool(const DescriptorPool&) = delete;
  DescriptorPool& operator=(const DescriptorPool&) = delete;

  VkDescriptorSet allocate(VkDescriptorSetLayout layout);

  /// Only when the GPU is done with every set.
  void reset();

 private:
  void add_pool();

  Device& device_;
  std::vector<VkDescriptorPool> pools_;
  size_t current_ = 0;
  uint32_t used_ = 0;  // sets of the current pool
};

}  // namespace q8ta::vulkan
