#include "vulkan/dispatch_record.h"

#include <algorithm>
#include <span>

#include "vulkan/device.h"

namespace q8ta::vulkan {

DispatchRecord describe(const Device& device, const Command& command, const DispatchLabel& label) {
  DispatchRecord record{label, command.workgroups};
  record.device = &device;
  const std::span ranges(command.bindings.data(), command.binding_count);
  for (auto range = ranges.begin(); range != ranges.end(); ++range) {
    // A binding that the shader does not need repeats another one.
    if (std::find(ranges.begin(), range, *range) == range) record.bytes += range->size;
  }
  return record;
}

void set_times(DispatchRecord& record, const Timestamps& timestamps, uint32_t index) {
  if (!timestamps.measured(index)) return;
  const Timestamps::Ticks ticks = timestamps.ticks(index);
  record.begin_ticks = ticks.begin;
  record.gpu_us = microseconds_between(*record.device, ticks.begin, ticks.end);
}

}  // namespace q8ta::vulkan
