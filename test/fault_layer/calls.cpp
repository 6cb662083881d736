#include "calls.h"

#include <algorithm>
#include <map>
#include <string_view>

#include "faults.h"
#include "tables.h"

namespace fault_layer {
namespace {

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
  if (object != VK_NULL_HANDLE && Faults::instance().leaks(kind)) return;
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

const std::map<std::string_view, PFN_vkVoidFunction>& hooks() {
  const auto plain = [](auto function) { return reinterpret_cast<PFN_vkVoidFunction>(function); };
  static const std::map<std::string_view, PFN_vkVoidFunction> all{
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

}  // namespace

PFN_vkVoidFunction hook_of_call(const char* name) {
  const auto found = hooks().find(name);
  return found == hooks().end() ? nullptr : found->second;
}

}  // namespace fault_layer
