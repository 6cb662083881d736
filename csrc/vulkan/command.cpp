#include "vulkan/command.h"

#include <algorithm>
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

void record_dispatch(Device& device, VkCommandBuffer commands, DescriptorPool& descriptors,
                     const Command& command) {
  const VolkDeviceTable& api = device.api();
  const Pipeline& pipeline = *command.pipeline;
  const VkDescriptorSet set = descriptors.allocate(pipeline.set_layout());
  std::array<VkDescriptorBufferInfo, Command::kMaxBindings> buffers;
  std::transform(command.bindings.begin(), command.bindings.begin() + command.binding_count, buffers.begin(),
                 [](const BufferRange& range) {
                   return VkDescriptorBufferInfo{range.buffer, range.offset, range.size};
                 });
  VkWriteDescriptorSet write{VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET};
  write.dstSet = set;
  write.descriptorCount = command.binding_count;  // runs on over consecutive bindings
  write.descriptorType = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER;
  write.pBufferInfo = buffers.data();
  api.vkUpdateDescriptorSets(device.handle(), 1, &write, 0, nullptr);

  api.vkCmdBindPipeline(commands, VK_PIPELINE_BIND_POINT_COMPUTE, pipeline.handle());
  api.vkCmdBindDescriptorSets(commands, VK_PIPELINE_BIND_POINT_COMPUTE, pipeline.layout(), 0, 1, &set, 0,
                              nullptr);
  api.vkCmdPushConstants(commands, pipeline.layout(), VK_SHADER_STAGE_COMPUTE_BIT, 0,
                         command.push_constant_bytes, command.push_constants.data());

  const uint32_t limit = device.info().limits.maxComputeWorkGroupCount[0];
  const uint32_t rows = (command.workgroups + limit - 1) / limit;
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

void record_command(Device& device, VkCommandBuffer commands, DescriptorPool& descriptors,
                    const Command& command) {
  if (command.pipeline != nullptr) {
    record_dispatch(device, commands, descriptors, command);
  } else {
    record_copy(device, commands, command);
  }
}

}  // namespace q8ta::vulkan
