#pragma once

#include <cstddef>

#include "vulkan/device.h"

namespace q8ta::vulkan {

struct MemoryInfo {
  size_t free_bytes;   ///< that this process can still have, as the driver or else the allocator estimates it
  size_t total_bytes;  ///< of the device
};

/// Of the heaps that are the device's own.
MemoryInfo memory_info(const Device& device);

}  // namespace q8ta::vulkan
