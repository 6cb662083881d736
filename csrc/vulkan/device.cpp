#include "vulkan/device.h"

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>
#include <vector>

#include "vulkan/device_stream.h"
#include "vulkan/error.h"
#include "vulkan/instance.h"
#include "vulkan/memory_pool.h"
#include "vulkan/process_exit.h"
#include "vulkan/stream_pool.h"

namespace q8ta::vulkan {

Device::Device(const Instance& instance, const DeviceInfo& info)
    : info_(info),
      validation_(instance.validation()),
      // Block offsets inside packed layouts are multiples of 16 bytes; a device that asks for less gains
      // nothing.
      binding_alignment_(std::max<VkDeviceSize>(info.limits.minStorageBufferOffsetAlignment, 16)) {
  try {
    create(instance);
  } catch (...) {
    destroy();
    throw;
  }
}

Device::~Device() { destroy(); }

void Device::destroy() {
  if (device_ == VK_NULL_HANDLE) return;
  if (queue_ != VK_NULL_HANDLE) wait_idle();
  stream_.reset();
  memory_.reset();
  streams_.reset();
  pipelines_.reset();
  if (allocator_ != VK_NULL_HANDLE) vmaDestroyAllocator(allocator_);
  api_.vkDestroyDevice(device_, nullptr);
}

void Device::create(const Instance& instance) {
  const bool core_1_3 = info_.api_version >= VK_API_VERSION_1_3;
  std::vector<const char*> extensions;
  VkPhysicalDeviceFeatures2 features{VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2};
  VkPhysicalDeviceShaderIntegerDotProductFeatures dot{
      VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_INTEGER_DOT_PRODUCT_FEATURES};
  VkPhysicalDeviceSubgroupSizeControlFeatures size_control{
      VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_FEATURES};
  void** tail = &features.pNext;
  if (info_.int_dot) {
    dot.shaderIntegerDotProduct = VK_TRUE;
    *tail = &dot;
    tail = &dot.pNext;
    if (!core_1_3) extensions.push_back(VK_KHR_SHADER_INTEGER_DOT_PRODUCT_EXTENSION_NAME);
  }
  if (info_.subgroup_arithmetic) {
    size_control.subgroupSizeControl = VK_TRUE;
    size_control.computeFullSubgroups = VK_TRUE;
    *tail = &size_control;
    tail = &size_control.pNext;
    if (!core_1_3) extensions.push_back(VK_EXT_SUBGROUP_SIZE_CONTROL_EXTENSION_NAME);
  }
  VkPhysicalDevicePipelineRobustnessFeaturesEXT robustness{
      VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PIPELINE_ROBUSTNESS_FEATURES_EXT};
  if (info_.pipeline_robustness) {
    robustness.pipelineRobustness = VK_TRUE;
    *tail = &robustness;
    tail = &robustness.pNext;
    extensions.push_back(VK_EXT_PIPELINE_ROBUSTNESS_EXTENSION_NAME);
  }
#ifdef VK_KHR_cooperative_matrix
  VkPhysicalDeviceCooperativeMatrixFeaturesKHR matrix{
      VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_FEATURES_KHR};
  VkPhysicalDeviceVulkanMemoryModelFeatures memory_model{
      VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_MEMORY_MODEL_FEATURES};
  VkPhysicalDeviceShaderFloat16Int8Features int8{
      VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_FLOAT16_INT8_FEATURES};
  if (!info_.cooperative_matrix_int8.empty()) {
    matrix.cooperativeMatrix = VK_TRUE;
    memory_model.vulkanMemoryModel = VK_TRUE;
    int8.shaderInt8 = VK_TRUE;
    matrix.pNext = &memory_model;
    memory_model.pNext = &int8;
    *tail = &matrix;
    tail = &int8.pNext;
    extensions.push_back(VK_KHR_COOPERATIVE_MATRIX_EXTENSION_NAME);
  }
#endif
  if (info_.host_import) extensions.push_back(VK_EXT_EXTERNAL_MEMORY_HOST_EXTENSION_NAME);
  const bool tells_budget = has_extension(info_.handle, VK_EXT_MEMORY_BUDGET_EXTENSION_NAME);
  if (tells_budget) extensions.push_back(VK_EXT_MEMORY_BUDGET_EXTENSION_NAME);
  // MoltenVK: a device that offers this extension must have it enabled.
  if (has_extension(info_.handle, "VK_KHR_portability_subset")) {
    extensions.push_back("VK_KHR_portability_subset");
  }

  const float priority = 1.0F;
  VkDeviceQueueCreateInfo queue_info{VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO};
  queue_info.queueFamilyIndex = info_.queue_family;
  queue_info.queueCount = 1;
  queue_info.pQueuePriorities = &priority;
  VkDeviceCreateInfo device_info{VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO};
  device_info.pNext = &features;
  device_info.queueCreateInfoCount = 1;
  device_info.pQueueCreateInfos = &queue_info;
  device_info.enabledExtensionCount = static_cast<uint32_t>(extensions.size());
  device_info.ppEnabledExtensionNames = extensions.data();
  VkDevice made = VK_NULL_HANDLE;
  check(vkCreateDevice(info_.handle, &device_info, nullptr, &made), "vkCreateDevice");
  device_ = made;
  volkLoadDeviceTable(&api_, device_);
  watch_driver_calls(api_);
  api_.vkGetDeviceQueue(device_, info_.queue_family, 0, &queue_);

  VmaVulkanFunctions functions{};
  functions.vkGetInstanceProcAddr = vkGetInstanceProcAddr;
  functions.vkGetDeviceProcAddr = vkGetDeviceProcAddr;
  functions.vkAllocateMemory = api_.vkAllocateMemory;
  functions.vkFreeMemory = api_.vkFreeMemory;
  functions.vkMapMemory = api_.vkMapMemory;
  functions.vkUnmapMemory = api_.vkUnmapMemory;
  functions.vkFlushMappedMemoryRanges = api_.vkFlushMappedMemoryRanges;
  functions.vkInvalidateMappedMemoryRanges = api_.vkInvalidateMappedMemoryRanges;
  functions.vkBindBufferMemory = api_.vkBindBufferMemory;
  functions.vkCreateBuffer = api_.vkCreateBuffer;
  functions.vkDestroyBuffer = api_.vkDestroyBuffer;
  functions.vkCmdCopyBuffer = api_.vkCmdCopyBuffer;
  VmaAllocatorCreateInfo allocator_info{};
  allocator_info.instance = instance.handle();
  allocator_info.physicalDevice = info_.handle;
  allocator_info.device = device_;
  allocator_info.pVulkanFunctions = &functions;
  allocator_info.vulkanApiVersion = kMinimumApiVersion;
  if (tells_budget) allocator_info.flags |= VMA_ALLOCATOR_CREATE_EXT_MEMORY_BUDGET_BIT;
  check(vmaCreateAllocator(&allocator_info, &allocator_), "vmaCreateAllocator");

  pipelines_ = std::make_unique<PipelineCache>(*this);
  streams_ = std::make_unique<StreamPool>(*this);
  memory_ = std::make_unique<MemoryPool>(*this);
  stream_ = std::make_unique<DeviceStream>(*this);
}

std::optional<uint32_t> Device::find_memory_type(uint32_t type_bits, VkMemoryPropertyFlags wanted) const {
  const VkPhysicalDeviceMemoryProperties* properties = nullptr;
  vmaGetMemoryProperties(allocator_, &properties);
  for (uint32_t i = 0; i < properties->memoryTypeCount; ++i) {
    const bool allowed = (type_bits >> i & 1U) != 0;
    if (allowed && (properties->memoryTypes[i].propertyFlags & wanted) == wanted) return i;
  }
  return std::nullopt;
}

VkResult Device::submit_once(std::span<const VkCommandBuffer> commands, VkFence fence) {
  VkSubmitInfo info{VK_STRUCTURE_TYPE_SUBMIT_INFO};
  info.commandBufferCount = static_cast<uint32_t>(commands.size());
  info.pCommandBuffers = commands.data();
  const std::lock_guard lock(queue_mutex_);
  return api_.vkQueueSubmit(queue_, 1, &info, fence);
}

void Device::submit(std::span<const VkCommandBuffer> commands, VkFence fence) {
  check_not_lost();
  VkResult result = submit_once(commands, fence);
  if (result == VK_ERROR_OUT_OF_HOST_MEMORY || result == VK_ERROR_OUT_OF_DEVICE_MEMORY) {
    wait_idle();
    result = submit_once(commands, fence);
  }
  check_result(result, "vkQueueSubmit");
}

void Device::wait_idle() noexcept {
  constexpr int kMostFailures = 100;
  constexpr auto kPause = std::chrono::milliseconds(2);
  VkResult result = VK_SUCCESS;
  for (int failures = 0; failures < kMostFailures && !lost(); ++failures) {
    {
      const std::lock_guard lock(queue_mutex_);
      result = api_.vkQueueWaitIdle(queue_);
    }
    if (result == VK_SUCCESS) return;
    if (result == VK_ERROR_DEVICE_LOST) break;
    std::this_thread::sleep_for(kPause);
  }
  set_lost("vkQueueWaitIdle", result);
}

void Device::check_result(VkResult result, const char* call) {
  if (result == VK_ERROR_DEVICE_LOST) set_lost(call, result);
  check_not_lost();
  check(result, call);
}

void Device::set_lost(const char* call, VkResult result) noexcept {
  const std::lock_guard lock(lost_mutex_);
  if (lost_) return;
  lost_in_ = call;
  lost_by_ = result;
  lost_.store(true, std::memory_order_release);
}

void Device::set_lost_ops(std::string ops) {
  const std::lock_guard lock(lost_mutex_);
  if (lost_ops_.empty()) lost_ops_ = std::move(ops);
}

void Device::throw_lost() const {
  const std::lock_guard lock(lost_mutex_);
  throw DeviceLost(info_.name + " was lost: " + failure_text(lost_by_, lost_in_) +
                   (lost_ops_.empty() ? "" : ", in work that holds: " + lost_ops_) +
                   ". Tensors on it are gone, and only a new process can have new ones there; calls with CPU "
                   "tensors open it again");
}

}  // namespace q8ta::vulkan
