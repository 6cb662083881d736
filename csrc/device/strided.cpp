#include "device/strided.h"

#include <bit>
#include <limits>

#include "device/allocator.h"
#include "device/tensor_memory.h"
#include "kernels/elementwise.h"
#include "vulkan/device_stream.h"

namespace q8ta::device {

vulkan::ByteRange readable_from(const vulkan::Device& device, vulkan::BufferRange memory) {
  const VkDeviceSize before = memory.offset % device.binding_alignment();
  memory.offset -= before;
  memory.size = vulkan::round_up(memory.size + before, 4);
  return {memory, static_cast<uint32_t>(before)};
}

namespace {

/// Sizes and strides with dimensions of size 1 left out and neighbours joined that lie alike in both tensors.
/// False if more are left than the kernel takes.
bool join_dimensions(const at::Tensor& from, const at::Tensor& to, kernels::StridedCopy& copy) {
  uint32_t used = 0;
  for (int64_t d = 0; d < from.dim(); ++d) {
    if (from.size(d) == 1) continue;
    const auto size = static_cast<uint32_t>(from.size(d));
    const auto from_stride = static_cast<uint32_t>(from.stride(d));
    const auto to_stride = static_cast<uint32_t>(to.stride(d));
    if (used > 0 && copy.source_strides[used - 1] == from_stride * size &&
        copy.destination_strides[used - 1] == to_stride * size) {
      --used;
      copy.sizes[used] *= size;
    } else {
      if (used == kernels::StridedCopy::kMaxDimensions) return false;
      copy.sizes[used] = size;
    }
    copy.source_strides[used] = from_stride;
    copy.destination_strides[used] = to_stride;
    ++used;
  }
  copy.dimensions = used;
  return true;
}

/// Whether words can be written as wholes: what is behind the last element in its word is no other tensor's.
bool owns_its_words(const at::Tensor& to, uint32_t first_element) {
  if (!to.is_contiguous()) return false;
  const auto bytes = static_cast<int64_t>(to.element_size());
  if (bytes >= 4) return true;
  const int64_t end = (to.storage_offset() + to.numel()) * bytes;
  const c10::Storage& storage = to.storage();
  const bool last = end == static_cast<int64_t>(storage.nbytes()) && owns_block(storage.data_ptr());
  const bool whole = to.numel() * bytes % 4 == 0 || last;
  return first_element * bytes % 4 == 0 && whole;
}

}  // namespace

bool copy_strided(const at::Tensor& from, const at::Tensor& to) {
  const size_t bytes = to.element_size();
  if (!std::has_single_bit(bytes) || bytes > 16) return false;
  if (to.numel() > std::numeric_limits<int32_t>::max()) return false;
  vulkan::Device& device = vulkan_device_of(to);
  const vulkan::ByteRange source = readable_from(device, memory_of(from));
  const vulkan::ByteRange destination = readable_from(device, memory_of(to));
  if (std::max(source.range.size, destination.range.size) > device.max_binding_bytes()) return false;
  kernels::StridedCopy copy;
  if (!join_dimensions(from, to, copy)) return false;
  copy.count = static_cast<uint32_t>(to.numel());
  copy.first_source = source.first_byte / static_cast<uint32_t>(bytes);
  copy.first_destination = destination.first_byte / static_cast<uint32_t>(bytes);
  const bool dense = owns_its_words(to, copy.first_destination);
  device.stream().record([&](vulkan::Recorder& recorder) {
    kernels::record_strided_copy(recorder, copy, static_cast<uint32_t>(bytes), dense, source.range,
                                 destination.range, "copy");
  });
  return true;
}

}  // namespace q8ta::device
