#pragma once

#include <cstdint>

#include "vulkan/command.h"
#include "vulkan/profiler.h"
#include "vulkan/timestamps.h"

namespace q8ta::vulkan {

/// What a profile says of a command, but for its times.
DispatchRecord describe(const Device& device, const Command& command, const DispatchLabel& label);

/// How long the command takes at most on a slow GPU, in multiplies: it computes, or it moves what it binds.
uint64_t work_of(const Command& command, const DispatchLabel& label);

/// Sets the times from those of a command that the GPU is done with, if it was measured.
void set_times(DispatchRecord& record, const Timestamps& timestamps, uint32_t index);

}  // namespace q8ta::vulkan
