#include "device/tensor_memory.h"

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

bool starts_binding(const at::Tensor& tensor) {
  return reinterpret_cast<uintptr_t>(tensor.const_data_ptr()) %
             vulkan_device_of(tensor).binding_alignment() ==
         0;
}

at::Tensor bindable(const at::Tensor& tensor) {
  const at::Tensor dense = tensor.contiguous();
  return starts_binding(dense) ? dense : dense.clone();
}

vulkan::BufferRange memory_of(const at::Tensor& tensor) {
  const int64_t bytes = span_bytes(tensor);
  if (bytes == 0) return {};
  const int64_t offset = offset_of(tensor);
  return memory_of(tensor.storage().data_ptr())
      .subrange(static_cast<VkDeviceSize>(offset), static_cast<VkDeviceSize>(bytes));
}

}  // namespace q8ta::device
