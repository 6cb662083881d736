#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>

#include "vulkan/buffer.h"
#include "vulkan/descriptor_pool.h"
#include "vulkan/pipeline.h"

namespace q8ta::vulkan {

/// A storage buffer argument of a dispatch and what the shader does with it.
struct Binding {
  BufferRange range;
  bool written = false;
};

/// One dispatch as it is recorded, or, without a pipeline, a copy from bindings[0] to bindings[1]. Plain
/// values, so that two can be compared.
struct Command {
  static constexpr size_t kMaxPushConstantBytes = 128;

  const Pipeline* pipeline = nullptr;
  std::array<BufferRange, kMaxBindings> bindings;
  uint32_t binding_count = 0;
  std::array<std::byte, kMaxPushConstantBytes> push_constants{};
  uint32_t push_constant_bytes = 0;
  uint32_t workgroups = 0;
  bool barrier_before = false;

  bool operator==(const Command&) const = default;
};

/// A dispatch of `workgroups` workgroups, folded into two dimensions where the device needs it (shaders use
/// workgroup_index()). `kernel` names it in errors.
Command dispatch_command(const Device& device, const Pipeline& pipeline,
                         std::initializer_list<Binding> bindings, std::span<const std::byte> push_constants,
                         uint32_t workgroups, const char* kernel);

/// A copy of all of `from` to `to`, which has the same size.
Command copy_command(const BufferRange& from, const BufferRange& to);

/// Pipeline stages and what they do to memory: one side of a barrier.
struct Scope {
  VkPipelineStageFlags stages = 0;
  VkAccessFlags access = 0;

  Scope& operator|=(const Scope& other) {
    stages |= other.stages;
    access |= other.access;
    return *this;
  }
};

inline constexpr Scope kHostReads{VK_PIPELINE_STAGE_HOST_BIT, VK_ACCESS_HOST_READ_BIT};
inline constexpr Scope kHostAccess{VK_PIPELINE_STAGE_HOST_BIT,
                                   VK_ACCESS_HOST_READ_BIT | VK_ACCESS_HOST_WRITE_BIT};
inline constexpr Scope kShaders{VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT,
                                VK_ACCESS_SHADER_READ_BIT | VK_ACCESS_SHADER_WRITE_BIT};
inline constexpr Scope kCopies{VK_PIPELINE_STAGE_TRANSFER_BIT,
                               VK_ACCESS_TRANSFER_READ_BIT | VK_ACCESS_TRANSFER_WRITE_BIT};
inline constexpr Scope kDeviceWork{kShaders.stages | kCopies.stages, kShaders.access | kCopies.access};

/// What a command does.
inline Scope scope_of(const Command& command) { return command.pipeline != nullptr ? kShaders : kCopies; }

/// Makes what `earlier` wrote visible to `later`, and `later` wait for it.
void record_barrier(const Device& device, VkCommandBuffer commands, const Scope& earlier, const Scope& later);

/// What the commands of a command buffer so far have bound, so that it is not bound again.
struct BoundState {
  const Pipeline* pipeline = nullptr;
  std::array<std::byte, Command::kMaxPushConstantBytes> push_constants;  // of that pipeline
  uint32_t push_constant_bytes = 0;
};

/// Records the command without its barrier. Descriptor sets come from `descriptors`.
void record_command(Device& device, VkCommandBuffer commands, DescriptorPool& descriptors, BoundState& bound,
                    const Command& command);

/// The same, whatever is bound.
inline void record_command(Device& device, VkCommandBuffer commands, DescriptorPool& descriptors,
                           const Command& command) {
  BoundState nothing;
  record_command(device, commands, descriptors, nothing, command);
}

}  // namespace q8ta::vulkan
