#pragma once

#include <volk.h>

#include <stdexcept>
#include <string>

namespace q8ta::vulkan {

/// Any failure of the Vulkan runtime; becomes a Python RuntimeError.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// There is no Vulkan here at all: no loader, no driver, or a forked child of a process that used it.
class Unavailable : public Error {
 public:
  using Error::Error;
};

const char* result_name(VkResult result);

/// There is no memory left on the device or the host.
class OutOfMemory : public Error {
 public:
  using Error::Error;
};

/// Throws Error naming `call` unless the result is VK_SUCCESS.
void check(VkResult result, const char* call);

}  // namespace q8ta::vulkan
