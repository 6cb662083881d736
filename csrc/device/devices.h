#pragma once

#include <c10/core/Device.h>

#include "vulkan/device.h"
#include "vulkan/memory_pool.h"

namespace q8ta::device {

/// Fixes what vk:0, vk:1, ... are: the device that CPU tensors go to, then the other hardware GPUs that can
/// be opened, and other software devices if the first is one. Throws vulkan::Error with the reason when there
/// is none.
void open_devices();

c10::DeviceIndex device_count();

/// Throws c10::Error for an index that does not exist.
vulkan::Device& device_at(c10::DeviceIndex index);

/// The calling thread's device.
c10::DeviceIndex current_device();
void set_current_device(c10::DeviceIndex index);

}  // namespace q8ta::device
