#pragma once

#include <ATen/core/Tensor.h>

namespace q8ta::device {

/// A CPU tensor with the sizes, strides and values of a vk tensor. Waits for the device.
at::Tensor cpu_mirror(const at::Tensor& tensor);

/// Copies between tensors of the same sizes, at least one of them on vk, any dtypes and strides.
void copy_tensor(const at::Tensor& from, const at::Tensor& to);

/// Gives the storage another size; what fits of its content stays.
void resize_storage(c10::StorageImpl& storage, size_t bytes);

}  // namespace q8ta::device
