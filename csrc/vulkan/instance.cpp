#include "vulkan/instance.h"

#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <string>

#include "vulkan/error.h"

namespace q8ta::vulkan {
namespace {

constexpr const char* kValidationLayer = "VK_LAYER_KHRONOS_validation";

void load_loader() {
  const char* path = std::getenv("Q8TA_VULKAN_LIBRARY");
  if (path == nullptr || *path == '\0') {
    if (volkInitialize() != VK_SUCCESS) {
      throw Unavailable("the Vulkan loader (libvulkan.so.1) was not found");
    }
    return;
  }
  void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  void* entry = library == nullptr ? nullptr : dlsym(library, "vkGetInstanceProcAddr");
  if (entry == nullptr) {
    throw Unavailable(std::string("the Vulkan loader that Q8TA_VULKAN_LIBRARY names could not be loaded: ") +
                      path);
  }
  volkInitializeCustom(reinterpret_cast<PFN_vkGetInstanceProcAddr>(entry));
}

bool has_validation_layer() {
  uint32_t count = 0;
  check(vkEnumerateInstanceLayerProperties(&count, nullptr), "vkEnumerateInstanceLayerProperties");
  std::vector<VkLayerProperties> layers(count);
  check(vkEnumerateInstanceLayerProperties(&count, layers.data()), "vkEnumerateInstanceLayerProperties");
  return std::any_of(layers.begin(), layers.end(), [](const VkLayerProperties& layer) {
    return std::strcmp(layer.layerName, kValidationLayer) == 0;
  });
}

}  // namespace

Instance::Instance(ValidationMode validation) : validation_(validation) {
  load_loader();
  if (volkGetInstanceVersion() < kMinimumApiVersion) {
    throw Unavailable("the Vulkan loader is older than Vulkan 1.2");
  }

  VkApplicationInfo application{VK_STRUCTURE_TYPE_APPLICATION_INFO};
  application.pApplicationName = "q8ta-ops";
  application.apiVersion = std::min<uint32_t>(volkGetInstanceVersion(), VK_API_VERSION_1_3);

  VkInstanceCreateInfo info{VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO};
  info.pApplicationInfo = &application;

  std::vector<const char*> extensions;
  VkDebugUtilsMessengerCreateInfoEXT messenger_info = debug_messenger_info();
  VkValidationFeaturesEXT features{VK_STRUCTURE_TYPE_VALIDATION_FEATURES_EXT};
  const std::array synchronization{VK_VALIDATION_FEATURE_ENABLE_SYNCHRONIZATION_VALIDATION_EXT};
  const std::array gpu_assisted{VK_VALIDATION_FEATURE_ENABLE_GPU_ASSISTED_EXT,
                                VK_VALIDATION_FEATURE_ENABLE_GPU_ASSISTED_RESERVE_BINDING_SLOT_EXT};
  if (validation != ValidationMode::off) {
    if (!has_validation_layer()) {
      throw Error(std::string("Q8TA_VALIDATION is set, but the layer ") + kValidationLayer +
                  " is not installed (Debian and Ubuntu: vulkan-validationlayers)");
    }
    extensions = {VK_EXT_DEBUG_UTILS_EXTENSION_NAME, VK_EXT_VALIDATION_FEATURES_EXTENSION_NAME};
    info.ppEnabledLayerNames = &kValidationLayer;
    info.enabledLayerCount = 1;
    if (validation == ValidationMode::gpu_assisted) {
      features.enabledValidationFeatureCount = gpu_assisted.size();
      features.pEnabledValidationFeatures = gpu_assisted.data();
    } else {
      features.enabledValidationFeatureCount = synchronization.size();
      features.pEnabledValidationFeatures = synchronization.data();
    }
    features.pNext = &messenger_info;
    info.pNext = &features;
  }
  info.enabledExtensionCount = static_cast<uint32_t>(extensions.size());
  info.ppEnabledExtensionNames = extensions.data();

  const VkResult created = vkCreateInstance(&info, nullptr, &instance_);
  if (created == VK_ERROR_INCOMPATIBLE_DRIVER) {
    throw Unavailable("the Vulkan loader found no driver");
  }
  check(created, "vkCreateInstance");
  volkLoadInstanceOnly(instance_);

  if (validation != ValidationMode::off) {
    const VkResult result = vkCreateDebugUtilsMessengerEXT(instance_, &messenger_info, nullptr, &messenger_);
    if (result != VK_SUCCESS) {  // no destructor follows
      vkDestroyInstance(instance_, nullptr);
      check(result, "vkCreateDebugUtilsMessengerEXT");
    }
  }
}

Instance::~Instance() {
  if (messenger_ != VK_NULL_HANDLE) vkDestroyDebugUtilsMessengerEXT(instance_, messenger_, nullptr);
  vkDestroyInstance(instance_, nullptr);
}

std::vector<VkPhysicalDevice> Instance::physical_devices() const {
  uint32_t count = 0;
  check(vkEnumeratePhysicalDevices(instance_, &count, nullptr), "vkEnumeratePhysicalDevices");
  std::vector<VkPhysicalDevice> devices(count);
  check(vkEnumeratePhysicalDevices(instance_, &count, devices.data()), "vkEnumeratePhysicalDevices");
  return devices;
}

}  // namespace q8ta::vulkan
