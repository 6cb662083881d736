#include "vulkan/validation.h"

#include <algorithm>
#include <iterator>
#include <memory>
#include <mutex>
#include <new>
#include <string_view>

#include "vulkan/error.h"
#include "vulkan/fork.h"

namespace q8ta::vulkan {
namespace {

struct MessageLog {
  std::mutex mutex;
  std::vector<std::string> messages;
};

// Leaked on purpose: a driver thread may still report while static objects are destroyed.
MessageLog& message_log() {
  static auto& log = *std::make_unique<MessageLog>().release();
  return log;
}

/// What GPU-assisted validation (1.3.239, 1.4.309) says about its own set-up: nothing that we could do
/// better.
bool is_about_the_layer(const std::string& text) {
  constexpr std::string_view kIds[] = {"UNASSIGNED-GPU-Assisted Validation Warning",
                                       "WARNING-GPU-Assisted-Validation", "VALIDATION-SETTINGS"};
  return std::any_of(std::begin(kIds), std::end(kIds),
                     [&](std::string_view id) { return text.starts_with(id); });
}

VKAPI_ATTR VkBool32 VKAPI_CALL on_message(VkDebugUtilsMessageSeverityFlagBitsEXT,
                                          VkDebugUtilsMessageTypeFlagsEXT,
                                          const VkDebugUtilsMessengerCallbackDataEXT* data, void*) {
  try {
    std::string text = data->pMessageIdName != nullptr ? data->pMessageIdName : "unnamed message";
    text += ": ";
    text += data->pMessage != nullptr ? data->pMessage : "";
    if (is_about_the_layer(text)) return VK_FALSE;
    MessageLog& log = message_log();
    const std::lock_guard lock(log.mutex);
    log.messages.push_back(std::move(text));
  } catch (const std::bad_alloc&) {  // the layer and the loader, which call this, expect no exceptions
  }
  return VK_TRUE;  // the layer then skips the faulty call
}

}  // namespace

ValidationMode parse_validation_mode(const char* text) {
  const std::string_view mode = text == nullptr ? "" : text;
  if (mode.empty() || mode == "0") return ValidationMode::off;
  if (mode == "1") return ValidationMode::core_and_synchronization;
  if (mode == "gpu") return ValidationMode::gpu_assisted;
  throw Error("Q8TA_VALIDATION: expected 0, 1 or gpu, got '" + std::string(mode) + "'");
}

std::vector<std::string> validation_messages() {
  if (inherited_by_fork()) return {};  // a thread that is not here may have held the mutex
  MessageLog& log = message_log();
  const std::lock_guard lock(log.mutex);
  return log.messages;
}

std::size_t validation_message_count() {
  MessageLog& log = message_log();
  const std::lock_guard lock(log.mutex);
  return log.messages.size();
}

void throw_new_validation_messages(std::size_t seen) {
  const std::vector<std::string> messages = validation_messages();
  if (messages.size() <= seen) return;
  std::string text = "Vulkan validation reported:";
  for (std::size_t i = seen; i < messages.size(); ++i) text += "\n" + messages[i];
  throw Error(text);
}

VkDebugUtilsMessengerCreateInfoEXT debug_messenger_info() {
  VkDebugUtilsMessengerCreateInfoEXT info{VK_STRUCTURE_TYPE_DEBUG_UTILS_MESSENGER_CREATE_INFO_EXT};
  info.messageSeverity =
      VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT | VK_DEBUG_UTILS_MESSAGE_SEVERITY_WARNING_BIT_EXT;
  info.messageType =
      VK_DEBUG_UTILS_MESSAGE_TYPE_VALIDATION_BIT_EXT | VK_DEBUG_UTILS_MESSAGE_TYPE_PERFORMANCE_BIT_EXT;
  info.pfnUserCallback = on_message;
  return info;
}

}  // namespace q8ta::vulkan
