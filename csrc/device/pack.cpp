// q8ta::pack and q8ta::unpack for vk tensors: queued like the linear operators.
#include "kernels/pack.h"

#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "device/out_of_memory.h"
#include "device/strided.h"
#include "device/tensor_memory.h"
#include "kernels/pack_host_memory.h"
#include "kernels/pack_pieces.h"
#include "kernels/weight_cache.h"
#include "ops/pack_checks.h"
#include "vulkan/device_stream.h"

namespace q8ta::device {
namespace {

using kernels::Layout;
using kernels::Matrices;

vulkan::BufferRange whole_words(vulkan::BufferRange range) {
  range.size = vulkan::round_up(range.size, 4);
  return range;
}

/// True if one dispatch does all of it; else it is done in pieces, through scratch memory.
bool fits_bindings(const vulkan::Device& device, const Matrices& matrices, Layout layout) {
  const auto most = static_cast<int64_t>(device.max_binding_bytes());
  const auto alignment = static_cast<int64_t>(device.binding_alignment());
  return matrices.bytes() + alignment + 4 <= most && 4 * kernels::packed_words(matrices, layout) <= most;
}

/// Records work that takes scratch memory.
template <typename Work>
void record(vulkan::Device& device, const Work& work) {
  kernels::with_spare_memory([&] { device.stream().record(work); });
}

void check_columns(const char* op, const char* argument, const vulkan::Device& device,
                   const Matrices& matrices) {
  if (!kernels::device_can_pack(device, matrices)) {
    ops::fail(op, argument, "expected four rows to fit into one binding of the device (",
              static_cast<int64_t>(device.max_binding_bytes()), " bytes), got K = ", matrices.columns);
  }
}

at::Tensor pack(const at::Tensor& x, int64_t layout_id) {
  const Layout layout = ops::check_layout("pack", layout_id);
  const Matrices matrices = ops::check_pack(x);
  const at::Tensor packed =
      at::empty(ops::packed_sizes(ops::sizes_of(x), layout), x.options().dtype(at::kInt));
  if (x.numel() == 0) return packed;
  vulkan::Device& device = vulkan_device_of(x);
  check_columns("pack", "x", device, matrices);
  const at::Tensor dense = x.contiguous();
  const kernels::PackOrder order = kernels::pack_order(layout);
  const vulkan::BufferRange words = memory_of(packed);
  if (fits_bindings(device, matrices, layout)) {
    device.stream().record([&](vulkan::Recorder& recorder) {
      kernels::record_pack(recorder, readable_from(device, memory_of(dense)), matrices, order, words, "pack");
    });
    return packed;
  }
  const vulkan::BufferRange rows = memory_of(dense);
  kernels::for_each_piece(matrices, layout, [&](const Matrices& piece, int64_t byte, int64_t word) {
    const auto bytes = static_cast<VkDeviceSize>(4 * kernels::packed_words(piece, layout));
    record(device, [&](vulkan::Recorder& recorder) {
      const vulkan::BufferRange scratch = recorder.scratch(bytes);
      const vulkan::BufferRange source =
          rows.subrange(static_cast<VkDeviceSize>(byte), static_cast<VkDeviceSize>(piece.bytes()));
      kernels::record_pack(recorder, readable_from(device, source), piece, order, scratch, "pack");
      recorder.copy(scratch, words.subrange(static_cast<VkDeviceSize>(4 * word), bytes), {"pack", "copy"});
    });
  });
  return packed;
}

at::Tensor unpack(const at::Tensor& packed, int64_t layout_id, at::IntArrayRef sizes) {
  const Layout layout = ops::check_layout("unpack", layout_id);
  const Matrices matrices = ops::check_unpack(packed, layout, sizes.vec());
  const at::Tensor x = at::empty(sizes, packed.options().dtype(at::kChar));
  if (matrices.bytes() == 0) return x;
  vulkan::Device& device = vulkan_device_of(packed);
  check_columns("unpack", "sizes", device, matrices);
  const kernels::PackOrder order = kernels::pack_order(layout);
  const vulkan::BufferRange rows = memory_of(x);
  if (fits_bindings(device, matrices, layout)) {
    const auto dense = bindable(packed, device);
    const vulkan::BufferRange words = memory_of(*dense);
    device.stream().record([&](vulkan::Recorder& recorder) {
      kernels::record_unpack(recorder, words, matrices, order, whole_words(rows), "unpack");
    });
    return x;
  }
  const at::Tensor dense = packed.contiguous();
  const vulkan::BufferRange words = memory_of(dense);
  kernels::for_each_piece(matrices, layout, [&](const Matrices& piece, int64_t byte, int64_t word) {
    const auto packed_bytes = static_cast<VkDeviceSize>(4 * kernels::packed_words(piece, layout));
    const auto bytes = static_cast<VkDeviceSize>(piece.bytes());
    record(device, [&](vulkan::Recorder& recorder) {
      const vulkan::BufferRange source = recorder.scratch(packed_bytes);
      const vulkan::BufferRange scratch = recorder.scratch(vulkan::round_up(bytes, 4));
      recorder.copy(words.subrange(static_cast<VkDeviceSize>(4 * word), packed_bytes), source,
                    {"unpack", "copy"});
      kernels::record_unpack(recorder, source, piece, order, scratch, "unpack");
      recorder.copy(scratch.subrange(0, bytes), rows.subrange(static_cast<VkDeviceSize>(byte), bytes),
                    {"unpack", "copy"});
    });
  });
  return x;
}

TORCH_LIBRARY_IMPL(q8ta, PrivateUse1, library) {
  library.impl("pack", VK_FN(pack));
  library.impl("unpack", VK_FN(unpack));
}

}  // namespace
}  // namespace q8ta::device
