#pragma once

#include <volk.h>

#include <cstdint>
#include <vector>

namespace q8ta::vulkan {

class Device;

/// Descriptor sets of storage buffers for one batch of work, reset together.
class DescriptorPool {
 public:
  explicit DescriptorPool(Device& device) : device_(device) {}
  ~DescriptorPool();
  DescriptorPool(const DescriptorPool&) = delete;
  DescriptorPool& operator=(const DescriptorPool&) = delete;

  /// Takes back all sets (the GPU must be done with them) and makes room for `sets` new ones. More can be
  /// allocated.
  void reset(uint32_t sets);

  VkDescriptorSet allocate(VkDescriptorSetLayout layout);

 private:
  void add_pool(uint32_t sets);

  Device& device_;
  std::vector<VkDescriptorPool> pools_;  // sets come from the last one, which is also the largest
  uint32_t capacity_ = 0;                // of the last one
  uint32_t allocated_ = 0;               // from the last one
};

}  // namespace q8ta::vulkan
