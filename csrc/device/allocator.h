#pragma once

#include <c10/core/CachingDeviceAllocator.h>

namespace q8ta::device {

/// torch's allocator for vk tensors. A storage's context is its vulkan::DeviceBlock; its data pointer is
/// unique, but not readable by the host.
c10::DeviceAllocator& allocator();

/// Makes it torch's allocator of the device.
void register_allocator();

}  // namespace q8ta::device
