#include "kernels/seeded_faults.h"

#include <array>
#include <stdexcept>

#include "kernels/pack.h"
#include "vulkan/buffer.h"
#include "vulkan/error.h"
#include "vulkan/stream_pool.h"
#include "vulkan/validation.h"

namespace q8ta::kernels {
namespace {

void create_empty_buffer(vulkan::Device& device) {
  VkBufferCreateInfo info{VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO};
  info.usage = VK_BUFFER_USAGE_STORAGE_BUFFER_BIT;
  VkBuffer buffer = VK_NULL_HANDLE;
  if (device.api().vkCreateBuffer(device.handle(), &info, nullptr, &buffer) == VK_SUCCESS) {
    device.api().vkDestroyBuffer(device.handle(), buffer, nullptr);
  }
}

void copy_without_barrier(vulkan::Device& device) {
  const VolkDeviceTable& api = device.api();
  constexpr VkDeviceSize kBytes = 256;
  const vulkan::Buffer written(device, vulkan::MemoryUse::device_local, kBytes);
  const vulkan::Buffer copy(device, vulkan::MemoryUse::device_local, kBytes);
  VkCommandPoolCreateInfo pool_info{VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO};
  pool_info.queueFamilyIndex = device.info().queue_family;
  VkCommandPool pool = VK_NULL_HANDLE;
  vulkan::check(api.vkCreateCommandPool(device.handle(), &pool_info, nullptr, &pool), "vkCreateCommandPool");
  VkCommandBufferAllocateInfo commands_info{VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO};
  commands_info.commandPool = pool;
  commands_info.commandBufferCount = 1;
  VkCommandBuffer commands = VK_NULL_HANDLE;
  if (api.vkAllocateCommandBuffers(device.handle(), &commands_info, &commands) == VK_SUCCESS) {
    const VkCommandBufferBeginInfo begin{VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO};
    api.vkBeginCommandBuffer(commands, &begin);
    api.vkCmdFillBuffer(commands, written.range().buffer, 0, kBytes, 0);
    const VkBufferCopy region{0, 0, kBytes};
    api.vkCmdCopyBuffer(commands, written.range().buffer, copy.range().buffer, 1, &region);
    api.vkEndCommandBuffer(commands);
  }
  api.vkDestroyCommandPool(device.handle(), pool, nullptr);
}

void read_behind_binding(vulkan::Device& device) {
  constexpr std::array<int8_t, 4> kSource{};
  const Matrices claimed{1, 1, 4096};
  const vulkan::StreamPool::Lease stream = device.streams().acquire();
  stream->begin();
  record_pack(*stream, stream->upload(kSource.data(), kSource.size()), claimed, PackOrder::rows_4w,
              stream->scratch(4096), "seeded fault");
  stream->submit();
  stream->wait();
}

}  // namespace

void seed_validation_fault(vulkan::Device& device, const std::string& kind) {
  const size_t seen = vulkan::validation_message_count();
  if (kind == "core") {
    create_empty_buffer(device);
  } else if (kind == "sync") {
    copy_without_barrier(device);
  } else if (kind == "gpu") {
    read_behind_binding(device);
  } else {
    throw std::invalid_argument("kind: expected core, sync or gpu, got '" + kind + "'");
  }
  vulkan::throw_new_validation_messages(seen);
}

}  // namespace q8ta::kernels
