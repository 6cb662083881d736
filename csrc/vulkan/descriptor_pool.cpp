#include "vulkan/descriptor_pool.h"

#include "vulkan/device.h"
#include "vulkan/error.h"

namespace q8ta::vulkan {
namespace {

constexpr uint32_t kSetsInPool = 64;
constexpr uint32_t kDescriptorsInSet = 4;  // the most storage buffers that a kernel of ours binds

}  // namespace

DescriptorPool::~DescriptorPool() {
  for (VkDescriptorPool pool : pools_) {
    device_.api().vkDestroyDescriptorPool(device_.handle(), pool, nullptr);
  }
}

void DescriptorPool::add_pool() {
  const VkDescriptorPoolSize size{VK_DESCRIPTOR_TYPE_STORAGE_BUFFER, kSetsInPool * kDescriptorsInSet};
  VkDescriptorPoolCreateInfo info{VK_STRUCTURE_TYPE_DESCRIPTOR_POOL_CREATE_INFO};
  info.maxSets = kSetsInPool;
  info.poolSizeCount = 1;
  info.pPoolSizes = &size;
  VkDescriptorPool pool = VK_NULL_HANDLE;
  check(device_.api().vkCreateDescriptorPool(device_.handle(), &info, nullptr, &pool),
        "vkCreateDescriptorPool");
  pools_.push_back(pool);
}

VkDescriptorSet DescriptorPool::allocate(VkDescriptorSetLayout layout) {
  if (!pools_.empty() && used_ == kSetsInPool) {
    ++current_;
    used_ = 0;
  }
  if (current_ == pools_.size()) add_pool();
  VkDescriptorSetAllocateInfo info{VK_STRUCTURE_TYPE_DESCRIPTOR_SET_ALLOCATE_INFO};
  info.descriptorPool = pools_[current_];
  info.descriptorSetCount = 1;
  info.pSetLayouts = &layout;
  VkDescriptorSet set = VK_NULL_HANDLE;
  check(device_.api().vkAllocateDescriptorSets(device_.handle(), &info, &set), "vkAllocateDescriptorSets");
  ++used_;
  return set;
}

void DescriptorPool::reset() {
  for (size_t i = 0; i <= current_ && i < pools_.size(); ++i) {
    check(device_.api().vkResetDescriptorPool(device_.handle(), pools_[i], 0), "vkResetDescriptorPool");
  }
  current_ = 0;
  used_ = 0;
}

}  // namespace q8ta::vulkan
