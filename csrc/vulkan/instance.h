#pragma once

#include <volk.h>

#include <vector>

#include "vulkan/validation.h"

namespace q8ta::vulkan {

/// Loads the Vulkan loader (once a process) and owns a VkInstance and its debug messenger.
class Instance {
 public:
  /// Throws Unavailable when there is no loader or no driver, Error when the validation layer is asked for
  /// and missing.
  explicit Instance(ValidationMode validation);
  ~Instance();
  Instance(const Instance&) = delete;
  Instance& operator=(const Instance&) = delete;

  VkInstance handle() const { return instance_; }
  ValidationMode validation() const { return validation_; }
  std::vector<VkPhysicalDevice> physical_devices() const;

 private:
  ValidationMode validation_;
  VkInstance instance_ = VK_NULL_HANDLE;
  VkDebugUtilsMessengerEXT messenger_ = VK_NULL_HANDLE;
};

/// The Vulkan version that q8ta-ops is written against and the least that a device must have.
inline constexpr uint32_t kMinimumApiVersion = VK_API_VERSION_1_2;

}  // namespace q8ta::vulkan
