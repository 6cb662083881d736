#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/MaybeOwned.h>

#include "vulkan/device.h"
#include "vulkan/memory_pool.h"

namespace q8ta::device {

/// The device of a vk tensor.
vulkan::Device& vulkan_device_of(const at::Tensor& tensor);

/// Bytes of device memory from the tensor's first element to behind its last one, whatever its strides.
/// Empty (no buffer) for a tensor without elements.
vulkan::BufferRange memory_of(const at::Tensor& tensor);

/// So many bytes of device memory from the tensor's first element on.
vulkan::BufferRange memory_from(const at::Tensor& tensor, int64_t bytes);

/// Bytes of the block from the tensor's first element on.
int64_t readable_bytes(const at::Tensor& tensor);

/// Whether a binding can start at the tensor's first element.
bool starts_binding(const at::Tensor& tensor, const vulkan::Device& device);

/// The tensor, if it is contiguous and in a place that a binding can start at, else a copy that is. Borrowed
/// where it can be: counting references costs as much as all else here.
c10::MaybeOwned<at::Tensor> bindable(const at::Tensor& tensor, const vulkan::Device& device);

/// Number of bytes that memory_of covers.
int64_t span_bytes(const at::Tensor& tensor);

}  // namespace q8ta::device
