#include "vulkan/device.h"

#include <algorithm>
#include <vector>

#include "vulkan/device_stream.h"
#include "vulkan/error.h"
#include "vulkan/instance.h"
#include "vulkan/memory_pool.h"
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
  api_.vkDeviceWaitIdle(device_);
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
  check(vkCreateDevice(info_.handle, &device_info, nullptr, &device_), "vkCreateDevice");
  volkLoadDeviceTable(&api_, device_);
  api_.vkGetDeviceQueue(device_, info_.queue_family, 0, &queue_);

  VmaVulkanFunctions functions{};
  functions.vkGetInstanceProcAddr = vkGetInstanceProcAddr;
  functions.vkGetDeviceProcAddr = vkGetDeviceProcAddr;
  VmaAllocatorCreateInfo allocator_info{};
  allocator_info.instance = instance.handle();
  allocator_info.physicalDevice = info_.handle;
  allocator_info.device = device_;
  allocator_info.pVulkanFunctions = &functions;
  allocator_info.vulkanApiVersion = kMinimumApiVersion;
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

void Device::submit(VkCommandBuffer commands, VkFence fence) {
  VkSubmitInfo info{VK_STRUCTURE_TYPE_SUBMIT_INFO};
  info.commandBufferCount = 1;
  info.pCommandBuffers = &commands;
  const std::lock_guard lock(queue_mutex_);
  check(api_.vkQueueSubmit(queue_, 1, &info, fence), "vkQueueSubmit");
}

}  // namespace q8ta::vulkan
