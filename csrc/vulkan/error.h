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

/// There is no memory left on the device or the host. What was asked for has not happened.
class OutOfMemory : public Error {
 public:
  using Error::Error;
};

/// The device has failed for good: what was in its memory is gone, and so is the work that was queued.
class DeviceLost : public Error {
 public:
  using Error::Error;
};

const char* result_name(VkResult result);

/// What check() says of a failure.
std::string failure_text(VkResult result, const char* call);

/// Throws Error naming `call` unless the result is VK_SUCCESS: OutOfMemory or DeviceLost where it means that.
void check(VkResult result, const char* call);

}  // namespace q8ta::vulkan
