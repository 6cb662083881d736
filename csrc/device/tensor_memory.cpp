#include "device/tensor_memory.h"

#include "device/devices.h"

namespace q8ta::device {

vulkan::Device& vulkan_device_of(const at::Tensor& tensor) { return device_at(tensor.device().index()); }

int64_t span_bytes(const at::Tensor& tensor) {
  if (tensor.numel() == 0) return 0;
  int64_t last_element = 0;
  for (int64_t i = 0; i < tensor.dim(); ++i) last_element += (tensor.size(i) - 1) * tensor.stride(i);
  return (last_element + 1) * static_cast<int64_t>(tensor.element_size());
}

vulkan::BufferRange memory_of(const at::Tensor& tensor) {
  const int64_t bytes = span_bytes(tensor);
  if (bytes == 0) return {};
  const auto* block = static_cast<const vulkan::DeviceBlock*>(tensor.storage().data_ptr().get_context());
  const auto offset = tensor.storage_offset() * static_cast<int64_t>(tensor.element_size());
  return block->buffer().range().subrange(static_cast<VkDeviceSize>(offset),
                                          static_cast<VkDeviceSize>(bytes));
}

}  // namespace q8ta::device
