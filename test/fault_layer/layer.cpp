// A Vulkan layer for tests that makes chosen calls fail (faults.h). A call that fails does not reach the
// driver, so it leaves no object and queues no work. Enabled by VK_INSTANCE_LAYERS it lies above the layers
// that the application asks for: validation sees what the application does about the failure, never the
// failed call.
#include <vulkan/vk_layer.h>

#include <cstring>
#include <memory>
#include <shared_mutex>
#include <utility>

#include "faults.h"

namespace fault_layer {
namespace {

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

std::shared_mutex tables_mutex;
std::map<const void*, std::unique_ptr<InstanceTable>> instances;
std::map<const void*, std::unique_ptr<DeviceTable>> devices;

/// The loader writes the same pointer into all handles of one instance or device.
template <typename Handle>
const void* key_of(Handle handle) {
  return *reinterpret_cast<const void* const*>(handle);
}

template <typename Handle>
const DeviceTable& device_of(Handle handle) {
  const std::shared_lock lock(tables_mutex);
  return *devices.at(key_of(handle));
}

template <typename Handle>
const InstanceTable& instance_of(Handle handle) {
  const std::shared_lock lock(tables_mutex);
  return *instances.at(key_of(handle));
}

template <typename Info>
Info* chained(const void* next, VkStructureType type) {
  auto* info = static_cast<const Info*>(next);
  while (info != nullptr && !(info->sType == type && info->function == VK_LAYER_LINK_INFO)) {
    info = static_cast<const Info*>(info->pNext);
  }
  return const_cast<Info*>(info);  // the loader means it to be changed
}

void finish_work(const DeviceTable& table) {
  table.function<PFN_vkDeviceWaitIdle>("vkDeviceWaitIdle")(table.device);
}

/// What the specification leaves undefined after a failure is a value that must not be used.
template <typename Handle>
void spoil(Handle* handle) {
  const uint64_t nonsense = 0xDEAD'BEEF'DEAD'BEE0U;
  std::memcpy(handle, &nonsense, sizeof(*handle));
}

bool may_lose(Call call) {
  switch (call) {
    case Call::QueueSubmit:
    case Call::QueueWaitIdle:
    case Call::DeviceWaitIdle:
    case Call::WaitForFences:
    case Call::GetFenceStatus:
    case Call::GetQueryPoolResults:
      return true;
    default:
      return false;
  }
}

/// VK_SUCCESS if the driver is to be asked.
VkResult injected(Call call, const DeviceTable& table) {
  Faults& faults = Faults::instance();
  const VkResult result = faults.next(call);
  if (result == VK_ERROR_DEVICE_LOST && !faults.is_lost(table.device)) {
    finish_work(table);  // what the lost device has begun touches no memory afterwards
    faults.lose(table.device);
  }
  if (result == VK_SUCCESS && may_lose(call) && faults.is_lost(table.device)) return VK_ERROR_DEVICE_LOST;
  return result;
}

template <Call call, typename Pointer>
struct Hook;

template <Call call, typename First, typename... Rest>
struct Hook<call, VkResult(VKAPI_PTR*)(First, Rest...)> {
  using Pointer = VkResult(VKAPI_PTR*)(First, Rest...);

  static VkResult next(const Functions& functions, First first, Rest... rest) {
    return reinterpret_cast<Pointer>(functions[static_cast<size_t>(call)])(first, rest...);
  }

  /// Of an instance or a physical device.
  static VKAPI_ATTR VkResult VKAPI_CALL of_instance(First first, Rest... rest) {
    const VkResult result = Faults::instance().next(call);
    return result != VK_SUCCESS ? result : next(instance_of(first).next, first, rest...);
  }

  /// Of a device, a queue or a command buffer, without an object as its result.
  static VKAPI_ATTR VkResult VKAPI_CALL of_device(First first, Rest... rest) {
    const DeviceTable& table = device_of(first);
    const VkResult result = injected(call, table);
    return result != VK_SUCCESS ? result : next(table.next, first, rest...);
  }
};

/// vkCreate* of (device, info, allocator, object).
template <Call call, typename Pointer>
struct Create;

template <Call call, typename Info, typename Object>
struct Create<call, VkResult(VKAPI_PTR*)(VkDevice, const Info*, const VkAllocationCallbacks*, Object*)> {
  static VKAPI_ATTR VkResult VKAPI_CALL hook(VkDevice device, const Info* info,
                                             const VkAllocationCallbacks* allocator, Object* object) {
    using Pointer = VkResult(VKAPI_PTR*)(VkDevice, const Info*, const VkAllocationCallbacks*, Object*);
    const DeviceTable& table = device_of(device);
    if (const VkResult result = injected(call, table); result != VK_SUCCESS) {
      spoil(object);
      return result;
    }
    const VkResult result = Hook<call, Pointer>::next(table.next, device, info, allocator, object);
    if (result == VK_SUCCESS) {
      Faults::instance().created(kind(), table.device, reinterpret_cast<uint64_t>(*object));
    }
    return result;
  }

  static const char* kind() {
    return call == Call::AllocateMemory ? "Memory" : name_of(call) + std::strlen("Create");
  }
};

/// vkDestroy* and vkFree* of (device, object, allocator).
template <typename Object>
void destroy(VkDevice device, Object object, const VkAllocationCallbacks* allocator, const char* kind,
             const char* name) {
  using Pointer = void(VKAPI_PTR*)(VkDevice, Object, const VkAllocationCallbacks*);
  const DeviceTable& table = device_of(device);
  Faults::instance().destroyed(kind, table.device, reinterpret_cast<uint64_t>(object));
  table.function<Pointer>(name)(device, object, allocator);
}

#define FAULT_LAYER_DESTROY_CALLS(X)                                          \
  X(DestroyBuffer, VkBuffer, "Buffer")                                        \
  X(DestroyCommandPool, VkCommandPool, "CommandPool")                         \
  X(DestroyDescriptorPool, VkDescriptorPool, "DescriptorPool")                \
  X(DestroyDescriptorSetLayout, VkDescriptorSetLayout, "DescriptorSetLayout") \
  X(DestroyFence, VkFence, "Fence")                                           \
  X(DestroyPipeline, VkPipeline, "Pipeline")                                  \
  X(DestroyPipelineCache, VkPipelineCache, "PipelineCache")                   \
  X(DestroyPipelineLayout, VkPipelineLayout, "PipelineLayout")                \
  X(DestroyQueryPool, VkQueryPool, "QueryPool")                               \
  X(DestroyShaderModule, VkShaderModule, "ShaderModule")                      \
  X(FreeMemory, VkDeviceMemory, "Memory")

#define X(name, Object, kind)                                                                               \
  VKAPI_ATTR void VKAPI_CALL name(VkDevice device, Object object, const VkAllocationCallbacks* allocator) { \
    destroy(device, object, allocator, kind, "vk" #name);                                                   \
  }
FAULT_LAYER_DESTROY_CALLS(X)
#undef X

VKAPI_ATTR VkResult VKAPI_CALL create_compute_pipelines(VkDevice device, VkPipelineCache cache,
                                                        uint32_t count,
                                                        const VkComputePipelineCreateInfo* infos,
                                                        const VkAllocationCallbacks* allocator,
                                                        VkPipeline* pipelines) {
  const DeviceTable& table = device_of(device);
  if (const VkResult result = injected(Call::CreateComputePipelines, table); result != VK_SUCCESS) {
    std::fill(pipelines, pipelines + count, VkPipeline{VK_NULL_HANDLE});
    return result;
  }
  const VkResult result = Hook<Call::CreateComputePipelines, PFN_vkCreateComputePipelines>::next(
      table.next, device, cache, count, infos, allocator, pipelines);
  for (uint32_t i = 0; i < count; ++i) {
    if (pipelines[i] == VK_NULL_HANDLE) continue;
    Faults::instance().created("Pipeline", table.device, reinterpret_cast<uint64_t>(pipelines[i]));
  }
  return result;
}

VKAPI_ATTR VkResult VKAPI_CALL allocate_command_buffers(VkDevice device,
                                                        const VkCommandBufferAllocateInfo* info,
                                                        VkCommandBuffer* commands) {
  const DeviceTable& table = device_of(device);
  if (const VkResult result = injected(Call::AllocateCommandBuffers, table); result != VK_SUCCESS) {
    std::fill(commands, commands + info->commandBufferCount, VkCommandBuffer{VK_NULL_HANDLE});
    return result;
  }
  const VkResult result = Hook<Call::AllocateCommandBuffers, PFN_vkAllocateCommandBuffers>::next(
      table.next, device, info, commands);
  if (result != VK_SUCCESS) return result;
  for (uint32_t i = 0; i < info->commandBufferCount; ++i) {
    Faults::instance().created("CommandBuffer", table.device, reinterpret_cast<uint64_t>(commands[i]),
                               reinterpret_cast<uint64_t>(info->commandPool));
  }
  return result;
}

VKAPI_ATTR void VKAPI_CALL free_command_buffers(VkDevice device, VkCommandPool pool, uint32_t count,
                                                const VkCommandBuffer* commands) {
  const DeviceTable& table = device_of(device);
  for (uint32_t i = 0; i < count; ++i) {
    Faults::instance().destroyed("CommandBuffer", table.device, reinterpret_cast<uint64_t>(commands[i]));
  }
  table.function<PFN_vkFreeCommandBuffers>("vkFreeCommandBuffers")(device, pool, count, commands);
}

VKAPI_ATTR VkResult VKAPI_CALL allocate_descriptor_sets(VkDevice device,
                                                        const VkDescriptorSetAllocateInfo* info,
                                                        VkDescriptorSet* sets) {
  const DeviceTable& table = device_of(device);
  if (const VkResult result = injected(Call::AllocateDescriptorSets, table); result != VK_SUCCESS) {
    std::fill(sets, sets + info->descriptorSetCount, VkDescriptorSet{VK_NULL_HANDLE});
    return result;
  }
  return Hook<Call::AllocateDescriptorSets, PFN_vkAllocateDescriptorSets>::next(table.next, device, info,
                                                                                sets);
}

/// A command buffer whose recording failed cannot be recorded further, so the driver ends it, too.
VKAPI_ATTR VkResult VKAPI_CALL end_command_buffer(VkCommandBuffer commands) {
  const DeviceTable& table = device_of(commands);
  const VkResult result = injected(Call::EndCommandBuffer, table);
  const VkResult ended = Hook<Call::EndCommandBuffer, PFN_vkEndCommandBuffer>::next(table.next, commands);
  return result != VK_SUCCESS ? result : ended;
}

VKAPI_ATTR VkResult VKAPI_CALL wait_for_fences(VkDevice device, uint32_t count, const VkFence* fences,
                                               VkBool32 all, uint64_t timeout) {
  const DeviceTable& table = device_of(device);
  if (const VkResult result = injected(Call::WaitForFences, table); result != VK_SUCCESS) return result;
  Faults& faults = Faults::instance();
  if (faults.hangs()) {
    faults.wait_while_hung(timeout, table.device);
    if (faults.is_lost(table.device)) return VK_ERROR_DEVICE_LOST;
    if (faults.hangs()) return VK_TIMEOUT;
  }
  return Hook<Call::WaitForFences, PFN_vkWaitForFences>::next(table.next, device, count, fences, all,
                                                              timeout);
}

VKAPI_ATTR VkResult VKAPI_CALL get_fence_status(VkDevice device, VkFence fence) {
  const DeviceTable& table = device_of(device);
  if (const VkResult result = injected(Call::GetFenceStatus, table); result != VK_SUCCESS) return result;
  if (Faults::instance().hangs()) return VK_NOT_READY;
  return Hook<Call::GetFenceStatus, PFN_vkGetFenceStatus>::next(table.next, device, fence);
}

// --- Instances and devices ---

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
  auto table = std::make_unique<InstanceTable>();
  table->instance = *instance;
  table->get = get;
#define X(name) table->next[static_cast<size_t>(Call::name)] = get(*instance, "vk" #name);
  FAULT_LAYER_INSTANCE_CALLS(X)
#undef X
  Faults::instance().created("Instance", nullptr, reinterpret_cast<uint64_t>(*instance));
  const std::unique_lock lock(tables_mutex);
  instances[key_of(*instance)] = std::move(table);
  return VK_SUCCESS;
}

VKAPI_ATTR void VKAPI_CALL destroy_instance(VkInstance instance, const VkAllocationCallbacks* allocator) {
  if (instance == VK_NULL_HANDLE) return;
  std::unique_ptr<InstanceTable> table;
  {
    const std::unique_lock lock(tables_mutex);
    table = std::move(instances.extract(key_of(instance)).mapped());
  }
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
  auto table = std::make_unique<DeviceTable>();
  table->device = *device;
  table->get = get;
#define X(name) table->next[static_cast<size_t>(Call::name)] = get(*device, "vk" #name);
  FAULT_LAYER_DEVICE_CALLS(X)
#undef X
  Faults::instance().created("Device", *device, reinterpret_cast<uint64_t>(*device));
  const std::unique_lock lock(tables_mutex);
  devices[key_of(*device)] = std::move(table);
  return VK_SUCCESS;
}

VKAPI_ATTR void VKAPI_CALL destroy_device(VkDevice device, const VkAllocationCallbacks* allocator) {
  if (device == VK_NULL_HANDLE) return;
  std::unique_ptr<DeviceTable> table;
  {
    const std::unique_lock lock(tables_mutex);
    table = std::move(devices.extract(key_of(device)).mapped());
  }
  Faults::instance().destroyed("Device", device, reinterpret_cast<uint64_t>(device));
  table->function<PFN_vkDestroyDevice>("vkDestroyDevice")(device, allocator);
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

const std::map<std::string_view, PFN_vkVoidFunction>& hooks() {
  const auto plain = [](auto function) { return reinterpret_cast<PFN_vkVoidFunction>(function); };
  static const std::map<std::string_view, PFN_vkVoidFunction> all{
      {"vkGetInstanceProcAddr", plain(&get_instance_proc_addr)},
      {"vkGetDeviceProcAddr", plain(&get_device_proc_addr)},
      {"vkCreateInstance", plain(&create_instance)},
      {"vkDestroyInstance", plain(&destroy_instance)},
      {"vkCreateDevice", plain(&create_device)},
      {"vkDestroyDevice", plain(&destroy_device)},
      {"vkCreateComputePipelines", plain(&create_compute_pipelines)},
      {"vkAllocateCommandBuffers", plain(&allocate_command_buffers)},
      {"vkFreeCommandBuffers", plain(&free_command_buffers)},
      {"vkAllocateDescriptorSets", plain(&allocate_descriptor_sets)},
      {"vkEndCommandBuffer", plain(&end_command_buffer)},
      {"vkWaitForFences", plain(&wait_for_fences)},
      {"vkGetFenceStatus", plain(&get_fence_status)},
#define X(name) {"vk" #name, plain(&Create<Call::name, PFN_vk##name>::hook)},
      // clang-format off
      X(AllocateMemory) X(CreateBuffer) X(CreateCommandPool) X(CreateDescriptorPool)
      X(CreateDescriptorSetLayout) X(CreateFence) X(CreatePipelineCache) X(CreatePipelineLayout)
      X(CreateQueryPool) X(CreateShaderModule)
#undef X
#define X(name) {"vk" #name, plain(&Hook<Call::name, PFN_vk##name>::of_instance)},
      FAULT_LAYER_INSTANCE_CALLS(X)
#undef X
#define X(name) {"vk" #name, plain(&Hook<Call::name, PFN_vk##name>::of_device)},
      X(BeginCommandBuffer) X(BindBufferMemory) X(BindBufferMemory2) X(DeviceWaitIdle)
      X(FlushMappedMemoryRanges) X(GetMemoryHostPointerPropertiesEXT) X(GetQueryPoolResults)
      X(InvalidateMappedMemoryRanges) X(MapMemory) X(QueueSubmit) X(QueueWaitIdle) X(ResetFences)
#undef X
#define X(name, Object, kind) {"vk" #name, plain(&name)},
      FAULT_LAYER_DESTROY_CALLS(X)
  // clang-format on
#undef X
  };
  return all;
}

PFN_vkVoidFunction hook_of(const char* name) {
  const auto found = hooks().find(name);
  return found == hooks().end() ? nullptr : found->second;
}

void lose_all_devices() {
  const std::shared_lock lock(tables_mutex);
  for (const auto& [key, table] : devices) {
    finish_work(*table);
    Faults::instance().lose(table->device);
  }
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
