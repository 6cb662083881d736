#pragma once

#include <ATen/core/Tensor.h>

#include "vulkan/device.h"
#include "vulkan/recorder.h"

namespace q8ta::device {

/// The memory as a binding, which begins at or before it where one may, and ends with a whole word.
vulkan::ByteRange readable_from(const vulkan::Device& device, vulkan::BufferRange memory);

/// Copies elements between vk tensors of the same sizes, type and device, of any strides, on the device.
/// False, and nothing done, where the kernel does not reach: elements of other than 1, 2, 4 or 8 bytes, more
/// than six dimensions that cannot be joined, or more memory than one binding takes.
bool copy_strided(const at::Tensor& from, const at::Tensor& to);

}  // namespace q8ta::device
