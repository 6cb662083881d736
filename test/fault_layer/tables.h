#pragma once

#include <vulkan/vk_layer.h>

#include <array>
#include <memory>

#include "faults.h"

/// Where the calls of each instance and device go on to, below this layer.
namespace fault_layer {

using Functions = std::array<PFN_vkVoidFunction, kCalls>;

struct InstanceTable {
  VkInstance instance = VK_NULL_HANDLE;
  PFN_vkGetInstanceProcAddr get = nullptr;
  Functions next{};
};

struct DeviceTable {
  VkDevice device = VK_NULL_HANDLE;
  PFN_vkGetDeviceProcAddr get = nullptr;
  Functions next{};

  template <typename Pointer>
  Pointer function(const char* name) const {
    return reinterpret_cast<Pointer>(get(device, name));
  }
};

/// The loader writes the same pointer into all handles of one instance or device.
template <typename Handle>
const void* key_of(Handle handle) {
  return *reinterpret_cast<const void* const*>(handle);
}

const InstanceTable& instance_table(const void* key);
const DeviceTable& device_table(const void* key);

/// Of the handle of an instance or a physical device.
template <typename Handle>
const InstanceTable& instance_of(Handle handle) {
  return instance_table(key_of(handle));
}

/// Of the handle of a device, a queue or a command buffer.
template <typename Handle>
const DeviceTable& device_of(Handle handle) {
  return device_table(key_of(handle));
}

void add_instance(VkInstance instance, PFN_vkGetInstanceProcAddr get);
void add_device(VkDevice device, PFN_vkGetDeviceProcAddr get);
std::unique_ptr<InstanceTable> take_instance(VkInstance instance);
std::unique_ptr<DeviceTable> take_device(VkDevice device);

/// What the device has begun ends.
void finish_work(const DeviceTable& table);
/// The same for every device that is open; then they are lost.
void lose_all_devices();

}  // namespace fault_layer
