#include "vulkan/command.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "vulkan/device.h"
#include "vulkan/error.h"

namespace q8ta::vulkan {
namespace {

void record_copy(const Device& device, VkCommandBuffer commands, const Command& command) {
  const BufferRange& from = command.bindings[0];
  const BufferRange& to = command.bindings[1];
  const VkBufferCopy region{from.offset, to.offset, to.size};
  device.api().vkCmdCopyBuffer(commands, from.buffer, to.buffer, 1, &region);
}

void record_dispatch(Device& device, VkCommandBuffer commands, DescriptorPool& descriptors, BoundState& bound,
                     const Command& command) {
  const VolkDeviceTable& api = device.api();
  const Pipeline& pipeline = *command.pipeline;
  const VkDescriptorSet set =
      descriptors.get(pipeline.set_layout(), {command.bindings.data(), command.binding_count});
  const bool same_pipeline = bound.pipeline == &pipeline;
  if (!same_pipeline) api.vkCmdBindPipeline(commands, VK_PIPELINE_BIND_POINT_COMPUTE, pipeline.handle());
  api.vkCmdBindDescriptorSets(commands, VK_PIPELINE_BIND_POINT_COMPUTE, pipeline.layout(), 0, 1, &set, 0,
                              nullptr);
  const uint32_t constant_bytes = command.push_constant_bytes;
  if (!same_pipeline || bound.push_constant_bytes != constant_bytes ||
      std::memcmp(command.push_constants.data(), bound.push_constants.data(), constant_bytes) != 0) {
    api.vkCmdPushConstants(commands, pipeline.layout(), VK_SHADER_STAGE_COMPUTE_BIT, 0, constant_bytes,
                           command.push_constants.data());
    std::memcpy(bound.push_constants.data(), command.push_constants.data(), constant_bytes);
    bound.push_constant_bytes = constant_bytes;
  }
  bound.pipeline = &pipeline;

  const uint32_t limit = device.info().limits.maxComputeWorkGroupCount[0];
  if (command.workgroups <= limit) {
    api.vkCmdDispatch(commands, command.workgroups, 1, 1);
    return;
  }
  const uint32_t rows = (command.workgroups - 1) / limit + 1;
  const uint32_t columns = (command.workgroups + rows - 1) / rows;
  api.vkCmdDispatch(commands, columns, rows, 1);
}

}  // namespace

Command dispatch_command(const Device& device, const Pipeline& pipeline,
                         std::initializer_list<Binding> bindings, std::span<const std::byte> push_constants,
                         uint32_t workgroups, const char* kernel) {
  Command command;
  command.pipeline = &pipeline;
  for (const Binding& binding : bindings) {
    if (binding.range.size > device.max_binding_bytes()) {
      throw Error(std::string("internal error: a binding of ") + kernel + " covers " +
                  std::to_string(binding.range.size) + " bytes, more than maxStorageBufferRange");
    }
    command.bindings.at(command.binding_count++) = binding.range;
  }
  std::copy(push_constants.begin(), push_constants.end(), command.push_constants.begin());
  command.push_constant_bytes = static_cast<uint32_t>(push_constants.size());
  command.workgroups = workgroups;
  return command;
}

Command copy_command(const BufferRange& from, const BufferRange& to) {
  Command command;
  command.bindings[0] = from;
  command.bindings[1] = to;
  command.binding_count = 2;
  return command;
}

void record_barrier(const Device& device, VkCommandBuffer commands, const Scope& earlier,
                    const Scope& later) {
  constexpr VkAccessFlags kWrites = VK_ACCESS_SHADER_WRITE_BIT | VK_ACCESS_TRANSFER_WRITE_BIT;
  VkMemoryBarrier memory{VK_STRUCTURE_TYPE_MEMORY_BARRIER};
  memory.srcAccessMask = earlier.access & kWrites;
  memory.dstAccessMask = later.access;
  device.api().vkCmdPipelineBarrier(commands, earlier.stages, later.stages, 0, 1, &memory, 0, nullptr, 0,
                                    nullptr);
}

void record_command(Device& device, VkCommandBuffer commands, DescriptorPool& descriptors, BoundState& bound,
                    const Command& command) {
  if (command.pipeline != nullptr) {
    record_dispatch(device, commands, descriptors, bound, command);
  } else {
    record_copy(device, commands, command);
  }
}

}  // namespace q8ta::vulkan
