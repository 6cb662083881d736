#include "device/copies.h"

#include <ATen/MemoryOverlap.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/empty_strided.h>
#include <c10/core/DeviceGuard.h>

#include <algorithm>

#include "device/allocator.h"
#include "device/devices.h"
#include "device/fallback.h"
#include "device/strided.h"
#include "device/tensor_memory.h"
#include "vulkan/device_stream.h"
#include "vulkan/submission_policy.h"

namespace q8ta::device {
namespace {

/// Elements lie where the host's tensor with these strides has them.
void upload(const at::Tensor& from, const at::Tensor& to) {
  const auto bytes = static_cast<size_t>(span_bytes(to));
  vulkan_device_of(to).stream().upload(from.const_data_ptr(), bytes, memory_of(to));
}

/// A CPU tensor that starts at the beginning of its own storage.
at::Tensor with_strides_of(const at::Tensor& like, const at::Tensor& values) {
  if (values.dtype() == like.dtype() && values.strides() == like.strides() &&
      values.is_conj() == like.is_conj() && values.is_neg() == like.is_neg()) {
    return values;
  }
  at::Tensor strided = at::empty_strided(like.sizes(), like.strides(), like.options().device(at::kCPU));
  strided._set_conj(like.is_conj());
  strided._set_neg(like.is_neg());
  strided.copy_(values);
  return strided;
}

void copy_to_device(const at::Tensor& from, const at::Tensor& to) {
  if (to.is_non_overlapping_and_dense()) {
    upload(with_strides_of(to, from), to);
    return;
  }
  // What lies between the elements is written, too, with what it was.
  const at::Tensor around = cpu_mirror(to);
  around.copy_(from);
  upload(around, to);
}

/// In pieces, each of which a slow GPU gets done in a submission of its own.
void copy_range(vulkan::Device& device, const vulkan::BufferRange& from, const vulkan::BufferRange& to,
                const char* op) {
  using Policy = vulkan::SubmissionPolicy;
  constexpr VkDeviceSize kPiece = Policy::kMostWork / Policy::kMultipliesPerByte / 2;  // read and written
  for (VkDeviceSize first = 0; first < from.size; first += kPiece) {
    const VkDeviceSize bytes = std::min(kPiece, from.size - first);
    device.stream().record([&](vulkan::Recorder& recorder) {
      recorder.copy(from.subrange(first, bytes), to.subrange(first, bytes), {op, "copy"});
    });
  }
}

/// What no kernel copies. Another device is reached through the CPU alone, which is no fallback.
void copy_through_cpu(const at::Tensor& from, const at::Tensor& to) {
  if (from.device() == to.device()) count_fallback("aten::_copy_from");
  copy_to_device(cpu_mirror(from), to);
}

void copy_on_device(const at::Tensor& from, const at::Tensor& to) {
  const vulkan::BufferRange source = memory_of(from);
  const vulkan::BufferRange destination = memory_of(to);
  const bool same_kind = from.dtype() == to.dtype() && from.device() == to.device() &&
                         from.is_conj() == to.is_conj() && from.is_neg() == to.is_neg();
  const bool same_places = same_kind && from.strides() == to.strides();
  if (same_places && source == destination) return;
  const bool overlap = source.buffer == destination.buffer &&
                       source.offset < destination.offset + destination.size &&
                       destination.offset < source.offset + source.size;
  if (!same_places || overlap || !from.is_non_overlapping_and_dense()) {
    if (!same_kind || overlap || !copy_strided(from, to)) copy_through_cpu(from, to);
    return;
  }
  copy_range(vulkan_device_of(to), source, destination, "copy");
}

}  // namespace

at::Tensor cpu_mirror(const at::Tensor& tensor) {
  const int64_t bytes = span_bytes(tensor);
  const at::Tensor memory = at::empty({bytes}, at::TensorOptions().dtype(at::kByte));
  if (bytes > 0) {
    vulkan_device_of(tensor).stream().download(memory_of(tensor), static_cast<size_t>(bytes),
                                               memory.mutable_data_ptr());
  }
  at::Tensor mirror = at::empty({0}, tensor.options().device(at::kCPU));
  mirror.set_(memory.storage(), 0, tensor.sizes(), tensor.strides());
  mirror._set_conj(tensor.is_conj());
  mirror._set_neg(tensor.is_neg());
  return mirror;
}

void copy_tensor(const at::Tensor& from, const at::Tensor& to) {
  if (to.numel() == 0) return;
  const at::Tensor values = from.sizes() == to.sizes() ? from : from.expand(to.sizes());
  at::assert_no_internal_overlap(to);
  at::assert_no_partial_overlap(to, values);
  if (values.is_cpu()) {
    copy_to_device(values, to);
  } else if (to.is_cpu()) {
    to.copy_(cpu_mirror(values));
  } else {
    copy_on_device(values, to);
  }
}

void resize_storage(c10::StorageImpl& storage, size_t bytes) {
  const c10::DeviceGuard guard(storage.device());
  at::DataPtr data = allocator().allocate(bytes);
  const size_t kept = std::min(bytes, storage.nbytes());
  if (kept > 0) {
    copy_range(device_at(storage.device().index()), memory_of(storage.data_ptr()).subrange(0, kept),
               memory_of(data).subrange(0, kept), "resize");
  }
  storage.set_data_ptr_noswap(std::move(data));
  storage.set_nbytes(bytes);
}

}  // namespace q8ta::device
