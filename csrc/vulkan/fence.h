#pragma once

#include <volk.h>

namespace q8ta::vulkan {

class Device;

/// Returns when the fence is signalled, or with the error that prevents it. Where the GPU is hardware, the
/// thread first looks again and again for a short while: it would sleep longer than short work takes.
VkResult wait_for_fence(const Device& device, VkFence fence);

}  // namespace q8ta::vulkan
