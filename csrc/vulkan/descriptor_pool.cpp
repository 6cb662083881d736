#include "vulkan/descriptor_pool.h"

#include "vulkan/command.h"
#include "vulkan/device.h"
#include "vulkan/error.h"

namespace q8ta::vulkan {

DescriptorPool::~DescriptorPool() {
  for (VkDescriptorPool pool : pools_) device_.api().vkDestroyDescriptorPool(device_.handle(), pool, nullptr);
}

void DescriptorPool::reset(uint32_t sets) {
  const VolkDeviceTable& api = device_.api();
  while (pools_.size() > 1) {  // the last one is kept: it was needed
    api.vkDestroyDescriptorPool(device_.handle(), pools_.front(), nullptr);
    pools_.erase(pools_.begin());
  }
  allocated_ = 0;
  if (sets <= capacity_) {
    if (!pools_.empty()) {
      check(api.vkResetDescriptorPool(device_.handle(), pools_.back(), 0), "vkResetDescriptorPool");
    }
    return;
  }
  if (!pools_.empty()) api.vkDestroyDescriptorPool(device_.handle(), pools_.back(), nullptr);
  pools_.clear();
  add_pool(sets);
}

void DescriptorPool::add_pool(uint32_t sets) {
  capacity_ = 0;
  allocated_ = 0;
  const VkDescriptorPoolSize size{VK_DESCRIPTOR_TYPE_STORAGE_BUFFER,
                                  sets * static_cast<uint32_t>(Command::kMaxBindings)};
  VkDescriptorPoolCreateInfo info{VK_STRUCTURE_TYPE_DESCRIPTOR_POOL_CREATE_INFO};
  info.maxSets = sets;
  info.poolSizeCount = 1;
  info.pPoolSizes = &size;
  VkDescriptorPool pool = VK_NULL_HANDLE;
  check(device_.api().vkCreateDescriptorPool(device_.handle(), &info, nullptr, &pool),
        "vkCreateDescriptorPool");
  pools_.push_back(pool);
  capacity_ = sets;
}

VkDescriptorSet DescriptorPool::allocate(VkDescriptorSetLayout layout) {
  constexpr uint32_t kFirstSets = 16;
  if (allocated_ == capacity_) add_pool(capacity_ == 0 ? kFirstSets : 2 * capacity_);
  VkDescriptorSetAllocateInfo info{VK_STRUCTURE_TYPE_DESCRIPTOR_SET_ALLOCATE_INFO};
  info.descriptorPool = pools_.back();
  info.descriptorSetCount = 1;
  info.pSetLayouts = &layout;
  VkDescriptorSet set = VK_NULL_HANDLE;
  check(device_.api().vkAllocateDescriptorSets(device_.handle(), &info, &set), "vkAllocateDescriptorSets");
  ++allocated_;
  return set;
}

}  // namespace q8ta::vulkan
