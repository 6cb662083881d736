#pragma once

#include <c10/core/CachingDeviceAllocator.h>

#include "vulkan/memory_pool.h"

namespace q8ta::device {

/// torch's allocator for vk tensors. A storage's context is its vulkan::DeviceBlock; its data pointer is
/// unique, but not readable by the host.
c10::DeviceAllocator& allocator();

/// The block behind a storage's memory: also where torch has made the storage from nothing but the address of
/// another one. Throws if the memory is not from this allocator.
const vulkan::DeviceBlock& block_of(const c10::DataPtr& data);

/// Makes it torch's allocator of the device.
void register_allocator();

}  // namespace q8ta::device
