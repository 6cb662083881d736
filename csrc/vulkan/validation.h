#pragma once

#include <volk.h>

#include <cstddef>
#include <string>
#include <vector>

namespace q8ta::vulkan {

/// What Q8TA_VALIDATION asks for. GPU-assisted checking is a mode of its own: it rewrites every shader, and
/// the layer of Vulkan 1.3.239 cannot combine it with synchronization validation.
enum class ValidationMode { off, core_and_synchronization, gpu_assisted };

/// "" and "0": off; "1": core and synchronization; "gpu": GPU-assisted. Throws Error on anything else.
ValidationMode parse_validation_mode(const char* text);

/// Everything the validation layer has said since the process started, one string a message.
std::vector<std::string> validation_messages();
std::size_t validation_message_count();

/// Throws Error with the messages that came after the first `seen`.
void throw_new_validation_messages(std::size_t seen);

/// The messenger to chain into instance creation and to create afterwards.
VkDebugUtilsMessengerCreateInfoEXT debug_messenger_info();

}  // namespace q8ta::vulkan
