#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/CachingDeviceAllocator.h>

#include "vulkan/memory_pool.h"

namespace q8ta::device {

/// torch's allocator for vk tensors. A storage's context is its vulkan::DeviceBlock; its data pointer is
/// unique, but not readable by the host.
c10::DeviceAllocator& allocator();

/// int8 [bytes]. Where memory is short, nothing that is kept for later calls is dropped for it: throws
/// vulkan::OutOfMemory then.
at::Tensor empty_if_there_is_memory(int64_t bytes, c10::Device device);

/// Device memory from a storage's first byte to the end of its block: also where torch has made the storage
/// from nothing but an address in another one. Throws if the memory is not from this allocator.
vulkan::BufferRange memory_of(const c10::DataPtr& data);

/// Whether the storage has its block for itself, unlike one that torch has made from an address.
bool owns_block(const c10::DataPtr& data);

/// Whether the host has the memory that the address of a vk tensor's element is in.
bool is_host_visible(const void* address);

/// The same memory, from that address on, where the host has it. Stays as long as this does.
c10::DataPtr shared_with_host(const void* address);

/// Makes it torch's allocator of the device.
void register_allocator();

}  // namespace q8ta::device
