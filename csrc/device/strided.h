#pragma once

#include <ATen/core/Tensor.h>

namespace q8ta::device {

/// Copies elements between vk tensors of the same sizes, type and device, of any strides, on the device.
/// False, and nothing done, where the kernel does not reach: elements of other than 1, 2, 4 or 8 bytes, more
/// than six dimensions that cannot be joined, or more memory than one binding takes.
bool copy_strided(const at::Tensor& from, const at::Tensor& to);

}  // namespace q8ta::device
