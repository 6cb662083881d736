#pragma once

#include <volk.h>

#include <cstdint>
#include <string>
#include <vector>

namespace q8ta::vulkan {

/// One shape that the device's cooperative matrices have, int8 x int8 -> int32.
struct CooperativeMatrixShape {
  uint32_t M, N, K;
};

/// The device's own memory that the host works on, too, without flushing or invalidating anything.
inline constexpr VkMemoryPropertyFlags kSharedMemory = VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT |
                                                       VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT |
                                                       VK_MEMORY_PROPERTY_HOST_COHERENT_BIT;

/// What a physical device is and can do, read once. Kernels decide from these, never from names.
struct DeviceInfo {
  VkPhysicalDevice handle = VK_NULL_HANDLE;
  uint32_t index = 0;
  std::string name;
  std::string driver;  ///< driver name and its own version text
  VkPhysicalDeviceType type = VK_PHYSICAL_DEVICE_TYPE_OTHER;
  uint32_t api_version = 0;
  VkPhysicalDeviceLimits limits{};

  bool int_dot = false;              ///< packed 4x8 dot product in shaders
  bool int_dot_accelerated = false;  ///< ... and the hardware has an instruction for it
  bool subgroup_arithmetic = false;  ///< subgroupAdd in compute shaders, with a size that can be required
  bool subgroup_shuffle = false;     ///< ... and subgroupShuffleXor
  uint32_t subgroup_size = 0;
  uint32_t max_workgroup_subgroups = 0;  ///< with a required size
  /// VK_EXT_pipeline_robustness, with NVIDIA's driver alone. It checks the bounds of every access to a
  /// buffer, by instructions, also where nobody asked for that: that costs some kernels up to 6 %, but the
  /// order that its compiler then gives to large matrix products is worth 2 %. With the feature on, a
  /// pipeline that does not say what it wants has no checks.
  bool pipeline_robustness = false;
  bool host_import = false;  ///< VK_EXT_external_memory_host
  VkDeviceSize host_import_alignment = 0;
  bool unified_memory = false;       ///< integrated or software: host and device share the memory
  bool host_visible_memory = false;  ///< ... and it has a type that is kSharedMemory
  std::vector<CooperativeMatrixShape>
      cooperative_matrix_int8;  ///< empty: no cooperative matrices that we can use

  uint32_t queue_family = 0;     ///< the family that compute work is submitted to
  uint32_t timestamp_bits = 0;   ///< valid bits of that family's timestamps; 0: none
  std::string unusable_because;  ///< empty when the device can run our kernels

  bool usable() const { return unusable_because.empty(); }
  bool software() const { return type == VK_PHYSICAL_DEVICE_TYPE_CPU; }
  const char* type_name() const;
};

DeviceInfo query_device_info(VkPhysicalDevice physical_device, uint32_t index);

bool has_extension(VkPhysicalDevice physical_device, const char* name);

}  // namespace q8ta::vulkan
