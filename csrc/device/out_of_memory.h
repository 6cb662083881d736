#pragma once

#include <ATen/core/dispatch/Dispatcher.h>

#include <utility>

#include "vulkan/error.h"

namespace q8ta::device {

/// Throws torch's OutOfMemoryError, with the sizes.
[[noreturn]] void throw_out_of_memory(const vulkan::OutOfMemory& error);

/// A function that torch calls. What it has no memory for on the device or in the driver, such as scratch and
/// staging memory, is torch's OutOfMemoryError like a tensor that there is no memory for.
template <auto function>
struct Kernel;

template <typename Result, typename... Arguments, Result (*function)(Arguments...)>
struct Kernel<function> {
  static Result call(Arguments... arguments) {
    try {
      return function(std::forward<Arguments>(arguments)...);
    } catch (const vulkan::OutOfMemory& error) {
      throw_out_of_memory(error);
    }
  }
};

}  // namespace q8ta::device

/// TORCH_FN for a kernel of the device.
#define VK_FN(function) TORCH_FN(::q8ta::device::Kernel<&function>::call)
