#include "vulkan/submission.h"

#include <chrono>

#include "vulkan/device.h"
#include "vulkan/error.h"
#include "vulkan/fence.h"

namespace q8ta::vulkan {

Submission::Submission(Device& device, uint32_t most_timed_commands)
    : device_(device), descriptors_(device), timestamps_(device, most_timed_commands) {
  try {
    create();
  } catch (...) {
    destroy();
    throw;
  }
}

Submission::~Submission() { destroy(); }

void Submission::create() {
  const VolkDeviceTable& api = device_.api();
  VkCommandPoolCreateInfo pool_info{VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO};
  pool_info.flags = VK_COMMAND_POOL_CREATE_RESET_COMMAND_BUFFER_BIT;
  pool_info.queueFamilyIndex = device_.info().queue_family;
  check(api.vkCreateCommandPool(device_.handle(), &pool_info, nullptr, &pool_), "vkCreateCommandPool");
  VkCommandBufferAllocateInfo commands_info{VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO};
  commands_info.commandPool = pool_;
  commands_info.level = VK_COMMAND_BUFFER_LEVEL_PRIMARY;
  commands_info.commandBufferCount = 1;
  check(api.vkAllocateCommandBuffers(device_.handle(), &commands_info, &commands_),
        "vkAllocateCommandBuffers");
  const VkFenceCreateInfo fence_info{VK_STRUCTURE_TYPE_FENCE_CREATE_INFO};
  check(api.vkCreateFence(device_.handle(), &fence_info, nullptr, &fence_), "vkCreateFence");
}

void Submission::destroy() {
  device_.api().vkDestroyFence(device_.handle(), fence_, nullptr);
  device_.api().vkDestroyCommandPool(device_.handle(), pool_, nullptr);
}

void Submission::begin(uint32_t sets) {
  descriptors_.reset(sets);
  const VkCommandBufferBeginInfo info{VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO};
  check(device_.api().vkBeginCommandBuffer(commands_, &info), "vkBeginCommandBuffer");
  timestamps_.record_reset(commands_);
}

Elapsed Submission::run(std::optional<uint32_t> measured) {
  const VolkDeviceTable& api = device_.api();
  check(api.vkEndCommandBuffer(commands_), "vkEndCommandBuffer");
  const auto start = std::chrono::steady_clock::now();
  device_.submit(commands_, fence_);
  check(wait_for_fence(device_, fence_), "waiting for the GPU");
  const auto end = std::chrono::steady_clock::now();
  check(api.vkResetFences(device_.handle(), 1, &fence_), "vkResetFences");
  Elapsed elapsed;
  elapsed.wall_us = std::chrono::duration<double, std::micro>(end - start).count();
  if (measured && timestamps_.measured(*measured)) elapsed.gpu_us = timestamps_.elapsed_us(*measured);
  return elapsed;
}

}  // namespace q8ta::vulkan
