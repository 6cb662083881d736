#include "device/tensor_memory.h"

#include <utility>

#include "device/allocator.h"
#include "device/devices.h"

namespace q8ta::device {

vulkan::Device& vulkan_device_of(const at::Tensor& tensor) { return device_at(tensor.device().index()); }

int64_t span_bytes(const at::Tensor& tensor) {
  if (tensor.is_contiguous()) return tensor.numel() * static_cast<int64_t>(tensor.element_size());
  if (tensor.numel() == 0) return 0;
  int64_t last_element = 0;
  for (int64_t i = 0; i < tensor.dim(); ++i) last_element += (tensor.size(i) - 1) * tensor.stride(i);
  return (last_element + 1) * static_cast<int64_t>(tensor.element_size());
}

namespace {

int64_t offset_of(const at::Tensor& tensor) {
  return tensor.storage_offset() * static_cast<int64_t>(tensor.element_size());
}

}  // namespace

int64_t readable_bytes(const at::Tensor& tensor) {
  return static_cast<int64_t>(memory_of(tensor.storage().data_ptr()).size) - offset_of(tensor);
}

bool starts_binding(const at::Tensor& tensor, const vulkan::Device& device) {
  const auto* begin = static_cast<const std::byte*>(tensor.storage().data_ptr().get());
  const auto first = reinterpret_cast<uintptr_t>(begin) + static_cast<uintptr_t>(offset_of(tensor));
  return (first & (device.binding_alignment() - 1)) == 0;  // a power of two
}

c10::MaybeOwned<at::Tensor> bindable(const at::Tensor& tensor, const vulkan::Device& device) {
  using Result = c10::MaybeOwned<at::Tensor>;
  if (tensor.is_contiguous()) {
    return starts_binding(tensor, device) ? Result::borrowed(tensor) : Result::owned(tensor.clone());
  }
  at::Tensor dense = tensor.contiguous();
  return Result::owned(starts_binding(dense, device) ? std::move(dense) : dense.clone());
}

vulkan::BufferRange memory_of(const at::Tensor& tensor) {
  const int64_t bytes = span_bytes(tensor);
  if (bytes == 0) return {};
  return memory_from(tensor, bytes);
}

vulkan::BufferRange memory_from(const at::Tensor& tensor, int64_t bytes) {
  return memory_of(tensor.storage().data_ptr())
      .subrange(static_cast<VkDeviceSize>(offset_of(tensor)), static_cast<VkDeviceSize>(bytes));
}

}  // namespace q8ta::device
