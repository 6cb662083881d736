#pragma once

#include <ATen/core/Tensor.h>

#include "vulkan/device.h"
#include "vulkan/memory_pool.h"

namespace q8ta::device {

/// The device of a vk tensor.
vulkan::Device& vulkan_device_of(const at::Tensor& tensor);

/// Bytes of device memory from the tensor's first element to behind its last one, whatever its strides.
/// Empty (no buffer) for a tensor without elements.
vulkan::BufferRange memory_of(const at::Tensor& tensor);

/// Bytes of the block from the tensor's first element on.
int64_t readable_bytes(const at::Tensor& tensor);

/// Whether a binding can start at the tensor's first element.
bool starts_binding(const at::Tensor& tensor);

/// The tensor, contiguous and in a place that a binding can start at.
at::Tensor bindable(const at::Tensor& tensor);

/// Number of bytes that memory_of covers.
int64_t span_bytes(const at::Tensor& tensor);

}  // namespace q8ta::device
