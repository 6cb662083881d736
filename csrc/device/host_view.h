#pragma once

#include <ATen/core/Tensor.h>

namespace q8ta::device {

/// Whether the host has the memory of a vk tensor.
bool is_host_visible(const at::Tensor& tensor);

/// A CPU tensor of the same sizes, strides and dtype in the same memory, which it keeps. Waits for the
/// device. In-place operators on it count as such on the vk tensor, too.
at::Tensor host_view(const at::Tensor& tensor);

}  // namespace q8ta::device
