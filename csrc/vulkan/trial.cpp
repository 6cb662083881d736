#include "vulkan/trial.h"

#include <chrono>

#include "vulkan/device.h"
#include "vulkan/error.h"
#include "vulkan/fence.h"

namespace q8ta::vulkan {
namespace {

constexpr uint32_t kAll = 0;  // the pair of timestamps around everything

}  // namespace

Trial::Trial(Device& device)
    : device_(device),
      descriptors_(device),
      timestamps_(device, 1),
      scratch_(device, MemoryUse::device_local) {
  try {
    create();
  } catch (...) {
    destroy();
    throw;
  }
}

Trial::~Trial() { destroy(); }

void Trial::create() {
  const VolkDeviceTable& api = device_.api();
  VkCommandPoolCreateInfo pool_info{VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO};
  pool_info.flags = VK_COMMAND_POOL_CREATE_RESET_COMMAND_BUFFER_BIT;
  pool_info.queueFamilyIndex = device_.info().queue_family;
  check(api.vkCreateCommandPool(device_.handle(), &pool_info, nullptr, &pool_), "vkCreateCommandPool");
  VkCommandBufferAllocateInfo commands_info{VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO};
  commands_info.commandPool = pool_;
  commands_info.level = VK_COMMAND_BUFFER_LEVEL_PRIMARY;
  commands_info.commandBufferCount = 1;
  check(api.vkAllocateCommandBuffers(device_.handle(), &commands_info, &commands_buffer_),
        "vkAllocateCommandBuffers");
  const VkFenceCreateInfo fence_info{VK_STRUCTURE_TYPE_FENCE_CREATE_INFO};
  check(api.vkCreateFence(device_.handle(), &fence_info, nullptr, &fence_), "vkCreateFence");
}

void Trial::destroy() {
  device_.api().vkDestroyFence(device_.handle(), fence_, nullptr);
  device_.api().vkDestroyCommandPool(device_.handle(), pool_, nullptr);
}

void Trial::dispatch(const Pipeline& pipeline, std::initializer_list<Binding> bindings,
                     std::span<const std::byte> push_constants, uint32_t workgroups,
                     const DispatchLabel& label) {
  commands_.push_back(
      dispatch_command(device_, pipeline, bindings, push_constants, workgroups, label.kernel));
}

void Trial::copy(const BufferRange& from, const BufferRange& to, const DispatchLabel& /*label*/) {
  commands_.push_back(copy_command(from, to));
}

void Trial::record() {
  const VolkDeviceTable& api = device_.api();
  descriptors_.reset(static_cast<uint32_t>(commands_.size()));
  const VkCommandBufferBeginInfo info{VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO};
  check(api.vkBeginCommandBuffer(commands_buffer_, &info), "vkBeginCommandBuffer");
  timestamps_.record_reset(commands_buffer_);
  // What others have queued is not part of the time.
  record_barrier(device_, commands_buffer_, kDeviceWork, kDeviceWork);
  timestamps_.record_begin(commands_buffer_, kAll);
  BoundState bound;
  for (const Command& command : commands_) {
    record_barrier(device_, commands_buffer_, kDeviceWork, kDeviceWork);
    record_command(device_, commands_buffer_, descriptors_, bound, command);
  }
  timestamps_.record_end(commands_buffer_, kAll);
  record_barrier(device_, commands_buffer_, kDeviceWork, kHostReads);
  check(api.vkEndCommandBuffer(commands_buffer_), "vkEndCommandBuffer");
}

double Trial::run() {
  record();
  const auto start = std::chrono::steady_clock::now();
  device_.submit(commands_buffer_, fence_);
  check(wait_for_fence(device_, fence_), "waiting for the GPU");
  const auto end = std::chrono::steady_clock::now();
  check(device_.api().vkResetFences(device_.handle(), 1, &fence_), "vkResetFences");
  commands_.clear();
  scratch_.reset();
  if (timestamps_.measured(kAll)) return timestamps_.elapsed_us(kAll);
  return std::chrono::duration<double, std::micro>(end - start).count();
}

}  // namespace q8ta::vulkan
