#include "vulkan/descriptor_pool.h"

#include <algorithm>

#include "vulkan/device.h"
#include "vulkan/error.h"
#include "vulkan/make_room.h"

namespace q8ta::vulkan {

DescriptorPool::~DescriptorPool() {
  for (VkDescriptorPool pool : pools_) device_.api().vkDestroyDescriptorPool(device_.handle(), pool, nullptr);
}

void DescriptorPool::reset(uint32_t sets) {
  for (SetsOfOneSize& each : sets_) each.used = 0;
  wanted_ = sets;
}

void DescriptorPool::add_pool(uint32_t sets) {
  const VkDescriptorPoolSize size{VK_DESCRIPTOR_TYPE_STORAGE_BUFFER,
                                  sets * static_cast<uint32_t>(kMaxBindings)};
  VkDescriptorPoolCreateInfo info{VK_STRUCTURE_TYPE_DESCRIPTOR_POOL_CREATE_INFO};
  info.maxSets = sets;
  info.poolSizeCount = 1;
  info.pPoolSizes = &size;
  q8ta::vulkan::make_room(pools_);
  VkDescriptorPool pool = VK_NULL_HANDLE;
  check(device_.api().vkCreateDescriptorPool(device_.handle(), &info, nullptr, &pool),
        "vkCreateDescriptorPool");
  pools_.push_back(pool);
  capacity_ = sets;
  allocated_ = 0;
}

VkResult DescriptorPool::allocate_from_last_pool(VkDescriptorSetLayout layout, VkDescriptorSet& set) {
  VkDescriptorSetAllocateInfo info{VK_STRUCTURE_TYPE_DESCRIPTOR_SET_ALLOCATE_INFO};
  info.descriptorPool = pools_.back();
  info.descriptorSetCount = 1;
  info.pSetLayouts = &layout;
  return device_.api().vkAllocateDescriptorSets(device_.handle(), &info, &set);
}

VkDescriptorSet DescriptorPool::allocate(VkDescriptorSetLayout layout) {
  const auto grow = [this] { add_pool(std::max({wanted_, 2 * capacity_, uint32_t{1}})); };
  if (allocated_ == capacity_) grow();
  VkDescriptorSet set = VK_NULL_HANDLE;
  VkResult result = allocate_from_last_pool(layout, set);
  if (result == VK_ERROR_OUT_OF_POOL_MEMORY || result == VK_ERROR_FRAGMENTED_POOL) {
    grow();  // the driver counts otherwise
    result = allocate_from_last_pool(layout, set);
  }
  check(result, "vkAllocateDescriptorSets");
  ++allocated_;
  return set;
}

void DescriptorPool::make_room(VkDescriptorSetLayout layout, size_t bindings) {
  SetsOfOneSize& alike = sets_.at(bindings);
  if (alike.used == alike.sets.size()) alike.sets.push_back({allocate(layout), {}});
}

VkDescriptorSet DescriptorPool::get(VkDescriptorSetLayout layout, std::span<const BufferRange> ranges) {
  make_room(layout, ranges.size());
  SetsOfOneSize& alike = sets_[ranges.size()];
  Set& set = alike.sets[alike.used++];
  if (std::equal(ranges.begin(), ranges.end(), set.ranges.begin())) return set.handle;

  std::array<VkDescriptorBufferInfo, kMaxBindings> buffers;
  std::transform(ranges.begin(), ranges.end(), buffers.begin(), [](const BufferRange& range) {
    return VkDescriptorBufferInfo{range.buffer, range.offset, range.size};
  });
  VkWriteDescriptorSet write{VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET};
  write.dstSet = set.handle;
  write.descriptorCount = static_cast<uint32_t>(ranges.size());  // runs on over consecutive bindings
  write.descriptorType = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER;
  write.pBufferInfo = buffers.data();
  device_.api().vkUpdateDescriptorSets(device_.handle(), 1, &write, 0, nullptr);
  std::copy(ranges.begin(), ranges.end(), set.ranges.begin());
  return set.handle;
}

}  // namespace q8ta::vulkan
