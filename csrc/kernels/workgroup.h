#pragma once

#include <cstdint>

#include "vulkan/device_info.h"

namespace q8ta::kernels {

/// Whether the device runs workgroups of so many threads in one dimension with so much shared memory.
inline bool workgroup_fits(const vulkan::DeviceInfo& info, uint32_t threads, uint32_t shared_bytes) {
  return threads <= info.limits.maxComputeWorkGroupInvocations &&
         threads <= info.limits.maxComputeWorkGroupSize[0] &&
         shared_bytes <= info.limits.maxComputeSharedMemorySize;
}

/// The same for workgroups of whole subgroups.
inline bool subgroups_fit(const vulkan::DeviceInfo& info, uint32_t subgroups, uint32_t shared_bytes) {
  return subgroups <= info.max_workgroup_subgroups &&
         workgroup_fits(info, subgroups * info.subgroup_size, shared_bytes);
}

}  // namespace q8ta::kernels
