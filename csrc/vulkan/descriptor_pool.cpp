#include "vulkan/descriptor_pool.h"

#include "vulkan/device.h"
#include "vulkan/error.h"
#include "vulkan/recorded_batch.h"

namespace q8ta::vulkan {

DescriptorPool::~DescriptorPool() { device_.api().vkDestroyDescriptorPool(device_.handle(), pool_, nullptr); }

void DescriptorPool::reset(uint32_t sets) {
  const VolkDeviceTable& api = device_.api();
  if (sets <= capacity_) {
    if (pool_ != VK_NULL_HANDLE) {
      check(api.vkResetDescriptorPool(device_.handle(), pool_, 0), "vkResetDescriptorPool");
    }
    return;
  }
  api.vkDestroyDescriptorPool(device_.handle(), pool_, nullptr);
  pool_ = VK_NULL_HANDLE;
  capacity_ = 0;
  const VkDescriptorPoolSize size{VK_DESCRIPTOR_TYPE_STORAGE_BUFFER,
                                  sets * static_cast<uint32_t>(Command::kMaxBindings)};
  VkDescriptorPoolCreateInfo info{VK_STRUCTURE_TYPE_DESCRIPTOR_POOL_CREATE_INFO};
  info.maxSets = sets;
  info.poolSizeCount = 1;
  info.pPoolSizes = &size;
  check(api.vkCreateDescriptorPool(device_.handle(), &info, nullptr, &pool_), "vkCreateDescriptorPool");
  capacity_ = sets;
}

VkDescriptorSet DescriptorPool::allocate(VkDescriptorSetLayout layout) {
  VkDescriptorSetAllocateInfo info{VK_STRUCTURE_TYPE_DESCRIPTOR_SET_ALLOCATE_INFO};
  info.descriptorPool = pool_;
  info.descriptorSetCount = 1;
  info.pSetLayouts = &layout;
  VkDescriptorSet set = VK_NULL_HANDLE;
  check(device_.api().vkAllocateDescriptorSets(device_.handle(), &info, &set), "vkAllocateDescriptorSets");
  return set;
}

}  // namespace q8ta::vulkan
