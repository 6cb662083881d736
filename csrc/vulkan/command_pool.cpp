#include "vulkan/command_pool.h"

#include "vulkan/device.h"
#include "vulkan/error.h"

namespace q8ta::vulkan {

CommandPool::CommandPool(Device& device) : device_(device) {
  VkCommandPoolCreateInfo info{VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO};
  info.flags = VK_COMMAND_POOL_CREATE_RESET_COMMAND_BUFFER_BIT;
  info.queueFamilyIndex = device.info().queue_family;
  check(device.api().vkCreateCommandPool(device.handle(), &info, nullptr, &pool_), "vkCreateCommandPool");
}

CommandPool::~CommandPool() { device_.api().vkDestroyCommandPool(device_.handle(), pool_, nullptr); }

VkCommandBuffer CommandPool::allocate() {
  VkCommandBufferAllocateInfo info{VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO};
  info.commandPool = pool_;
  info.level = VK_COMMAND_BUFFER_LEVEL_PRIMARY;
  info.commandBufferCount = 1;
  VkCommandBuffer commands = VK_NULL_HANDLE;
  check(device_.api().vkAllocateCommandBuffers(device_.handle(), &info, &commands),
        "vkAllocateCommandBuffers");
  return commands;
}

void CommandPool::free(VkCommandBuffer commands) {
  device_.api().vkFreeCommandBuffers(device_.handle(), pool_, 1, &commands);
}

CommandRecording::CommandRecording(Device& device, VkCommandBuffer commands, VkCommandBufferUsageFlags usage)
    : device_(device), commands_(commands) {
  VkCommandBufferBeginInfo info{VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO};
  info.flags = usage;
  check(device.api().vkBeginCommandBuffer(commands, &info), "vkBeginCommandBuffer");
}

CommandRecording::~CommandRecording() {
  if (!ended_) device_.api().vkEndCommandBuffer(commands_);
}

void CommandRecording::end() {
  ended_ = true;
  check(device_.api().vkEndCommandBuffer(commands_), "vkEndCommandBuffer");
}

}  // namespace q8ta::vulkan
