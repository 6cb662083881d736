#include "vulkan/dispatch_record.h"

#include <algorithm>
#include <span>

#include "vulkan/device.h"
#include "vulkan/submission_policy.h"

namespace q8ta::vulkan {
namespace {

/// Of the memory that it binds.
uint64_t bytes_of(const Command& command) {
  uint64_t bytes = 0;
  const std::span ranges(command.bindings.data(), command.binding_count);
  for (auto range = ranges.begin(); range != ranges.end(); ++range) {
    // A binding that the shader does not need repeats another one.
    if (std::find(ranges.begin(), range, *range) == range) bytes += range->size;
  }
  return bytes;
}

}  // namespace

DispatchRecord describe(const Device& device, const Command& command, const DispatchLabel& label) {
  DispatchRecord record{label, command.workgroups};
  record.device = &device;
  record.bytes = bytes_of(command);
  return record;
}

uint64_t work_of(const Command& command, const DispatchLabel& label) {
  return std::max(label.multiplies(), bytes_of(command) * SubmissionPolicy::kMultipliesPerByte);
}

void set_times(DispatchRecord& record, const Timestamps& timestamps, uint32_t index) {
  if (!timestamps.measured(index)) return;
  const Timestamps::Ticks ticks = timestamps.ticks(index);
  record.begin_ticks = ticks.begin;
  record.gpu_us = microseconds_between(*record.device, ticks.begin, ticks.end);
}

}  // namespace q8ta::vulkan
