// A Vulkan layer for tests that makes chosen calls fail (faults.h). A call that fails does not reach the
// driver, so it leaves no object and queues no work. Enabled by VK_INSTANCE_LAYERS it lies above the layers
// that the application asks for: validation sees what the application does about the failure, never the
// failed call.
#include <vulkan/vk_layer.h>

#include <map>
#include <memory>
#include <string_view>

#include "calls.h"
#include "faults.h"
#include "tables.h"

namespace fault_layer {
namespace {

template <typename Info>
Info* chained(const void* next, VkStructureType type) {
  auto* info = static_cast<const Info*>(next);
  while (info != nullptr && !(info->sType == type && info->function == VK_LAYER_LINK_INFO)) {
    info = static_cast<const Info*>(info->pNext);
  }
  return const_cast<Info*>(info);  // the loader means it to be changed
}

PFN_vkVoidFunction hook_of(const char* name);

VKAPI_ATTR VkResult VKAPI_CALL create_instance(const VkInstanceCreateInfo* info,
                                               const VkAllocationCallbacks* allocator, VkInstance* instance) {
  if (const VkResult result = Faults::instance().next(Call::CreateInstance); result != VK_SUCCESS) {
    return result;
  }
  auto* link = chained<VkLayerInstanceCreateInfo>(info->pNext, VK_STRUCTURE_TYPE_LOADER_INSTANCE_CREATE_INFO);
  if (link == nullptr) return VK_ERROR_INITIALIZATION_FAILED;
  const PFN_vkGetInstanceProcAddr get = link->u.pLayerInfo->pfnNextGetInstanceProcAddr;
  link->u.pLayerInfo = link->u.pLayerInfo->pNext;
  const auto create = reinterpret_cast<PFN_vkCreateInstance>(get(VK_NULL_HANDLE, "vkCreateInstance"));
  const VkResult result = create(info, allocator, instance);
  if (result != VK_SUCCESS) return result;
  add_instance(*instance, get);
  Faults::instance().created("Instance", nullptr, reinterpret_cast<uint64_t>(*instance));
  return VK_SUCCESS;
}

VKAPI_ATTR void VKAPI_CALL destroy_instance(VkInstance instance, const VkAllocationCallbacks* allocator) {
  if (instance == VK_NULL_HANDLE) return;
  const std::unique_ptr<InstanceTable> table = take_instance(instance);
  Faults::instance().destroyed("Instance", nullptr, reinterpret_cast<uint64_t>(instance));
  reinterpret_cast<PFN_vkDestroyInstance>(table->get(instance, "vkDestroyInstance"))(instance, allocator);
}

VKAPI_ATTR VkResult VKAPI_CALL create_device(VkPhysicalDevice physical_device, const VkDeviceCreateInfo* info,
                                             const VkAllocationCallbacks* allocator, VkDevice* device) {
  if (const VkResult result = Faults::instance().next(Call::CreateDevice); result != VK_SUCCESS) {
    spoil(device);
    return result;
  }
  auto* link = chained<VkLayerDeviceCreateInfo>(info->pNext, VK_STRUCTURE_TYPE_LOADER_DEVICE_CREATE_INFO);
  if (link == nullptr) return VK_ERROR_INITIALIZATION_FAILED;
  const PFN_vkGetInstanceProcAddr get_of_instance = link->u.pLayerInfo->pfnNextGetInstanceProcAddr;
  const PFN_vkGetDeviceProcAddr get = link->u.pLayerInfo->pfnNextGetDeviceProcAddr;
  link->u.pLayerInfo = link->u.pLayerInfo->pNext;
  const VkInstance instance = instance_of(physical_device).instance;
  const auto create = reinterpret_cast<PFN_vkCreateDevice>(get_of_instance(instance, "vkCreateDevice"));
  const VkResult result = create(physical_device, info, allocator, device);
  if (result != VK_SUCCESS) return result;
  add_device(*device, get);
  Faults::instance().created("Device", *device, reinterpret_cast<uint64_t>(*device));
  return VK_SUCCESS;
}

VKAPI_ATTR void VKAPI_CALL destroy_device(VkDevice device, const VkAllocationCallbacks* allocator) {
  if (device == VK_NULL_HANDLE) return;
  const std::unique_ptr<DeviceTable> table = take_device(device);
  Faults::instance().destroyed("Device", device, reinterpret_cast<uint64_t>(device));
  table->function<PFN_vkDestroyDevice>("vkDestroyDevice")(device, allocator);
}

VKAPI_ATTR void VKAPI_CALL get_physical_device_properties(VkPhysicalDevice physical_device,
                                                          VkPhysicalDeviceProperties* properties) {
  const InstanceTable& table = instance_of(physical_device);
  const PFN_vkVoidFunction next = table.get(table.instance, "vkGetPhysicalDeviceProperties");
  reinterpret_cast<PFN_vkGetPhysicalDeviceProperties>(next)(physical_device, properties);
  if (Faults::instance().pretends_discrete()) properties->deviceType = VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU;
}

VKAPI_ATTR PFN_vkVoidFunction VKAPI_CALL get_device_proc_addr(VkDevice device, const char* name) {
  const DeviceTable& table = device_of(device);
  const PFN_vkVoidFunction next = table.get(device, name);
  if (next == nullptr) return nullptr;  // of an extension that is not enabled
  const PFN_vkVoidFunction hook = hook_of(name);
  return hook != nullptr ? hook : next;
}

VKAPI_ATTR PFN_vkVoidFunction VKAPI_CALL get_instance_proc_addr(VkInstance instance, const char* name) {
  const PFN_vkVoidFunction hook = hook_of(name);
  if (hook != nullptr || instance == VK_NULL_HANDLE) return hook;
  return instance_of(instance).get(instance, name);
}

PFN_vkVoidFunction hook_of(const char* name) {
  const auto plain = [](auto function) { return reinterpret_cast<PFN_vkVoidFunction>(function); };
  static const std::map<std::string_view, PFN_vkVoidFunction> here{
      {"vkGetInstanceProcAddr", plain(&get_instance_proc_addr)},
      {"vkGetDeviceProcAddr", plain(&get_device_proc_addr)},
      {"vkCreateInstance", plain(&create_instance)},
      {"vkDestroyInstance", plain(&destroy_instance)},
      {"vkCreateDevice", plain(&create_device)},
      {"vkDestroyDevice", plain(&destroy_device)},
      {"vkGetPhysicalDeviceProperties", plain(&get_physical_device_properties)},
  };
  const auto found = here.find(name);
  return found == here.end() ? hook_of_call(name) : found->second;
}

}  // namespace
}  // namespace fault_layer

extern "C" {

/// What every device that is open has begun ends, and then the devices are lost.
void q8ta_faults_lose_devices() { fault_layer::lose_all_devices(); }

VKAPI_ATTR VkResult VKAPI_CALL vkNegotiateLoaderLayerInterfaceVersion(VkNegotiateLayerInterface* interface) {
  interface->loaderLayerInterfaceVersion = 2;
  interface->pfnGetInstanceProcAddr = &fault_layer::get_instance_proc_addr;
  interface->pfnGetDeviceProcAddr = &fault_layer::get_device_proc_addr;
  interface->pfnGetPhysicalDeviceProcAddr = nullptr;
  return VK_SUCCESS;
}

}  // extern "C"
