#include "vulkan/device_info.h"

#include <algorithm>
#include <cstring>

#include "vulkan/error.h"
#include "vulkan/instance.h"

namespace q8ta::vulkan {
namespace {

/// Whether the features are there that shaders with cooperative matrices of int8 need.
bool supports_cooperative_matrix(VkPhysicalDevice device) {
#ifdef VK_KHR_cooperative_matrix
  if (!has_extension(device, VK_KHR_COOPERATIVE_MATRIX_EXTENSION_NAME)) return false;
  VkPhysicalDeviceFeatures2 features{VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2};
  VkPhysicalDeviceCooperativeMatrixFeaturesKHR matrix{
      VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_FEATURES_KHR};
  VkPhysicalDeviceVulkanMemoryModelFeatures memory_model{
      VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_MEMORY_MODEL_FEATURES};
  VkPhysicalDeviceShaderFloat16Int8Features int8{
      VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_FLOAT16_INT8_FEATURES};
  features.pNext = &matrix;
  matrix.pNext = &memory_model;
  memory_model.pNext = &int8;
  vkGetPhysicalDeviceFeatures2(device, &features);
  return matrix.cooperativeMatrix == VK_TRUE && memory_model.vulkanMemoryModel == VK_TRUE &&
         int8.shaderInt8 == VK_TRUE;
#else
  (void)device;
  return false;
#endif
}

std::vector<CooperativeMatrixShape> query_cooperative_matrix_int8(VkPhysicalDevice device) {
  std::vector<CooperativeMatrixShape> shapes;
#ifdef VK_KHR_cooperative_matrix
  if (vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR == nullptr) return shapes;
  uint32_t count = 0;
  vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR(device, &count, nullptr);
  VkCooperativeMatrixPropertiesKHR blank{VK_STRUCTURE_TYPE_COOPERATIVE_MATRIX_PROPERTIES_KHR};
  std::vector<VkCooperativeMatrixPropertiesKHR> properties(count, blank);
  vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR(device, &count, properties.data());
  for (const VkCooperativeMatrixPropertiesKHR& p : properties) {
    if (p.AType == VK_COMPONENT_TYPE_SINT8_KHR && p.BType == VK_COMPONENT_TYPE_SINT8_KHR &&
        p.CType == VK_COMPONENT_TYPE_SINT32_KHR && p.ResultType == VK_COMPONENT_TYPE_SINT32_KHR &&
        p.scope == VK_SCOPE_SUBGROUP_KHR && !p.saturatingAccumulation) {
      shapes.push_back({p.MSize, p.NSize, p.KSize});
    }
  }
#else
  (void)device;
#endif
  return shapes;
}

bool has_shared_memory(VkPhysicalDevice device) {
  VkPhysicalDeviceMemoryProperties memory{};
  vkGetPhysicalDeviceMemoryProperties(device, &memory);
  return std::any_of(memory.memoryTypes, memory.memoryTypes + memory.memoryTypeCount,
                     [](const auto& type) { return (type.propertyFlags & kSharedMemory) == kSharedMemory; });
}

void query_queue_family(DeviceInfo& info) {
  uint32_t count = 0;
  vkGetPhysicalDeviceQueueFamilyProperties(info.handle, &count, nullptr);
  std::vector<VkQueueFamilyProperties> families(count);
  vkGetPhysicalDeviceQueueFamilyProperties(info.handle, &count, families.data());
  const auto family = std::find_if(families.begin(), families.end(), [](const auto& candidate) {
    return (candidate.queueFlags & VK_QUEUE_COMPUTE_BIT) != 0;
  });
  if (family == families.end()) {
    info.unusable_because = "it has no compute queue";
    return;
  }
  info.queue_family = static_cast<uint32_t>(family - families.begin());
  info.timestamp_bits = family->timestampValidBits;
}

}  // namespace

bool has_extension(VkPhysicalDevice physical_device, const char* name) {
  uint32_t count = 0;
  check(vkEnumerateDeviceExtensionProperties(physical_device, nullptr, &count, nullptr),
        "vkEnumerateDeviceExtensionProperties");
  std::vector<VkExtensionProperties> extensions(count);
  check(vkEnumerateDeviceExtensionProperties(physical_device, nullptr, &count, extensions.data()),
        "vkEnumerateDeviceExtensionProperties");
  return std::any_of(extensions.begin(), extensions.end(), [name](const VkExtensionProperties& extension) {
    return std::strcmp(extension.extensionName, name) == 0;
  });
}

const char* DeviceInfo::type_name() const {
  switch (type) {
    case VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU:
      return "discrete";
    case VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU:
      return "integrated";
    case VK_PHYSICAL_DEVICE_TYPE_VIRTUAL_GPU:
      return "virtual";
    case VK_PHYSICAL_DEVICE_TYPE_CPU:
      return "cpu";
    default:
      return "other";
  }
}

DeviceInfo query_device_info(VkPhysicalDevice physical_device, uint32_t index) {
  DeviceInfo info;
  info.handle = physical_device;
  info.index = index;

  VkPhysicalDeviceProperties basic{};
  vkGetPhysicalDeviceProperties(physical_device, &basic);
  info.name = basic.deviceName;
  info.type = basic.deviceType;
  info.api_version = basic.apiVersion;
  info.limits = basic.limits;
  if (basic.apiVersion < kMinimumApiVersion) {
    info.unusable_because = "it has Vulkan " + std::to_string(VK_API_VERSION_MAJOR(basic.apiVersion)) + "." +
                            std::to_string(VK_API_VERSION_MINOR(basic.apiVersion)) + "; 1.2 is needed";
    return info;
  }

  const bool core_1_3 = basic.apiVersion >= VK_API_VERSION_1_3;
  const bool dot_extension =
      core_1_3 || has_extension(physical_device, VK_KHR_SHADER_INTEGER_DOT_PRODUCT_EXTENSION_NAME);
  const bool size_extension =
      core_1_3 || has_extension(physical_device, VK_EXT_SUBGROUP_SIZE_CONTROL_EXTENSION_NAME);
  info.host_import = has_extension(physical_device, VK_EXT_EXTERNAL_MEMORY_HOST_EXTENSION_NAME);
  const bool robustness_extension = has_extension(physical_device, VK_EXT_PIPELINE_ROBUSTNESS_EXTENSION_NAME);

  VkPhysicalDeviceProperties2 properties{VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2};
  VkPhysicalDeviceDriverProperties driver{VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_DRIVER_PROPERTIES};
  VkPhysicalDeviceSubgroupProperties subgroup{VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_PROPERTIES};
  VkPhysicalDeviceShaderIntegerDotProductProperties dot{
      VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_INTEGER_DOT_PRODUCT_PROPERTIES};
  VkPhysicalDeviceSubgroupSizeControlProperties size_control{
      VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_PROPERTIES};
  VkPhysicalDeviceExternalMemoryHostPropertiesEXT host_memory{
      VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_EXTERNAL_MEMORY_HOST_PROPERTIES_EXT};
  properties.pNext = &driver;
  driver.pNext = &subgroup;
  void** tail = &subgroup.pNext;
  const auto chain = [&tail](auto& structure) {
    *tail = &structure;
    tail = &structure.pNext;
  };
  if (dot_extension) chain(dot);
  if (size_extension) chain(size_control);
  if (info.host_import) chain(host_memory);
  vkGetPhysicalDeviceProperties2(physical_device, &properties);

  VkPhysicalDeviceFeatures2 features{VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2};
  VkPhysicalDeviceShaderIntegerDotProductFeatures dot_feature{
      VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_INTEGER_DOT_PRODUCT_FEATURES};
  VkPhysicalDeviceSubgroupSizeControlFeatures size_feature{
      VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_FEATURES};
  VkPhysicalDevicePipelineRobustnessFeaturesEXT robustness_feature{
      VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PIPELINE_ROBUSTNESS_FEATURES_EXT};
  tail = &features.pNext;
  if (dot_extension) chain(dot_feature);
  if (size_extension) chain(size_feature);
  if (robustness_extension) chain(robustness_feature);
  vkGetPhysicalDeviceFeatures2(physical_device, &features);

  info.driver = std::string(driver.driverName) + " " + driver.driverInfo;
  info.int_dot = dot_feature.shaderIntegerDotProduct == VK_TRUE;
  info.int_dot_accelerated = info.int_dot && dot.integerDotProduct4x8BitPackedSignedAccelerated == VK_TRUE;
  info.subgroup_size = subgroup.subgroupSize;
  info.max_workgroup_subgroups = size_control.maxComputeWorkgroupSubgroups;
  info.subgroup_arithmetic = size_feature.subgroupSizeControl == VK_TRUE &&
                             size_feature.computeFullSubgroups == VK_TRUE &&
                             (size_control.requiredSubgroupSizeStages & VK_SHADER_STAGE_COMPUTE_BIT) != 0 &&
                             (subgroup.supportedStages & VK_SHADER_STAGE_COMPUTE_BIT) != 0 &&
                             (subgroup.supportedOperations & VK_SUBGROUP_FEATURE_ARITHMETIC_BIT) != 0;
  info.subgroup_shuffle =
      info.subgroup_arithmetic && (subgroup.supportedOperations & VK_SUBGROUP_FEATURE_SHUFFLE_BIT) != 0;
  info.pipeline_robustness =
      driver.driverID == VK_DRIVER_ID_NVIDIA_PROPRIETARY && robustness_feature.pipelineRobustness == VK_TRUE;
  info.host_import_alignment = host_memory.minImportedHostPointerAlignment;
  info.unified_memory =
      info.type == VK_PHYSICAL_DEVICE_TYPE_CPU || info.type == VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU;
  info.host_visible_memory = info.unified_memory && has_shared_memory(physical_device);
  if (supports_cooperative_matrix(physical_device)) {
    info.cooperative_matrix_int8 = query_cooperative_matrix_int8(physical_device);
  }
  query_queue_family(info);
  return info;
}

}  // namespace q8ta::vulkan
