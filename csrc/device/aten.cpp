// The part of aten that every backend has to bring: making tensors, views of them, copies.
#include <ATen/EmptyTensor.h>
#include <ATen/native/Resize.h>
#include <ATen/native/TensorFactories.h>
#include <ATen/ops/_copy_from_native.h>
#include <ATen/ops/_local_scalar_dense.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_as_complex_native.h>
#include <ATen/ops/view_as_real_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/DeviceGuard.h>
#include <torch/library.h>

#include "device/allocator.h"
#include "device/copies.h"
#include "device/devices.h"
#include "device/out_of_memory.h"

namespace q8ta::device {
namespace {

constexpr c10::DispatchKeySet kKeys(c10::DispatchKey::PrivateUse1);

c10::Device device_or_current(std::optional<c10::Device> device) {
  const c10::Device chosen = device.value_or(c10::Device(c10::DeviceType::PrivateUse1));
  return chosen.has_index() ? chosen : c10::Device(c10::DeviceType::PrivateUse1, current_device());
}

at::Tensor empty(at::IntArrayRef size, std::optional<at::ScalarType> dtype, std::optional<at::Layout> layout,
                 std::optional<at::Device> device, std::optional<bool> /*pin_memory*/,
                 std::optional<at::MemoryFormat> memory_format) {
  TORCH_CHECK(layout.value_or(at::kStrided) == at::kStrided, "vk: expected a strided layout");
  const c10::DeviceGuard guard(device_or_current(device));
  return at::detail::empty_generic(size, &allocator(), kKeys, c10::dtype_or_default(dtype), memory_format);
}

at::Tensor empty_strided(at::IntArrayRef size, at::IntArrayRef stride, std::optional<at::ScalarType> dtype,
                         std::optional<at::Layout> layout, std::optional<at::Device> device,
                         std::optional<bool> /*pin_memory*/) {
  TORCH_CHECK(layout.value_or(at::kStrided) == at::kStrided, "vk: expected a strided layout");
  const c10::DeviceGuard guard(device_or_current(device));
  return at::detail::empty_strided_generic(size, stride, &allocator(), kKeys, c10::dtype_or_default(dtype));
}

at::Tensor as_strided(const at::Tensor& self, at::IntArrayRef size, at::IntArrayRef stride,
                      std::optional<int64_t> storage_offset) {
  return at::native::as_strided_tensorimpl(self, size, stride, storage_offset);
}

at::Tensor copy_from(const at::Tensor& self, const at::Tensor& destination, bool /*non_blocking*/) {
  copy_tensor(self, destination);
  return destination;
}

at::Tensor copy_from_and_resize(const at::Tensor& self, const at::Tensor& destination) {
  destination.resize_(self.sizes());
  copy_tensor(self, destination);
  return destination;
}

at::Scalar local_scalar_dense(const at::Tensor& self) { return at::_local_scalar_dense(cpu_mirror(self)); }

/// There is one stream, and memory is reused in its order.
void record_stream(at::Tensor& /*self*/, c10::Stream /*stream*/) {}

/// Makes the storage large enough for the tensor's sizes, strides and offset.
void fit_storage(const at::Tensor& self) {
  if (self.numel() == 0) return;
  const size_t bytes = at::detail::computeStorageNbytes(self.sizes(), self.strides(), self.itemsize(),
                                                        static_cast<size_t>(self.storage_offset()));
  if (bytes > self.storage().nbytes()) resize_storage(*self.storage().unsafeGetStorageImpl(), bytes);
}

const at::Tensor& resize(const at::Tensor& self, at::IntArrayRef size,
                         std::optional<at::MemoryFormat> memory_format) {
  auto& impl = *self.unsafeGetTensorImpl();
  if (self.sizes() != size) impl.set_sizes_contiguous(size);
  if (memory_format) impl.empty_tensor_restride(*memory_format);
  fit_storage(self);
  return self;
}

at::Tensor& set_storage_with_sizes(at::Tensor& self, at::Storage source, int64_t storage_offset,
                                   at::IntArrayRef size, at::IntArrayRef stride) {
  at::native::checkSetStorage(self, source, storage_offset, size, stride, /*check_offset_in_bounds=*/false);
  auto& impl = *self.unsafeGetTensorImpl();
  impl.set_storage_offset(storage_offset);
  if (stride.data() != nullptr && !(stride.empty() && !size.empty())) {
    impl.set_sizes_and_strides(size, stride);
  } else {
    impl.set_sizes_contiguous(size);
  }
  fit_storage(self);
  return self;
}

at::Tensor& set_storage(at::Tensor& self, at::Storage source) {
  const auto elements = static_cast<int64_t>(source.nbytes() / self.itemsize());
  return set_storage_with_sizes(self, std::move(source), 0, {elements}, {});
}

at::Tensor& set_tensor(at::Tensor& self, const at::Tensor& source) {
  return set_storage_with_sizes(self, source.storage(), source.storage_offset(), source.sizes(),
                                source.strides());
}

at::Tensor& set_empty(at::Tensor& self) {
  return set_storage(self, empty({0}, self.scalar_type(), {}, self.device(), {}, {}).storage());
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, library) {
  library.impl("empty.memory_format", TORCH_FN(empty));
  library.impl("empty_strided", TORCH_FN(empty_strided));
  library.impl("as_strided", TORCH_FN(as_strided));
  library.impl("view", TORCH_FN(at::native::view));
  library.impl("_reshape_alias", TORCH_FN(at::native::_reshape_alias));
  library.impl("unfold", TORCH_FN(at::native::unfold));
  library.impl("view_as_real", TORCH_FN(at::native::view_as_real));
  library.impl("view_as_complex", TORCH_FN(at::native::view_as_complex));
  library.impl("resize_", VK_FN(resize));
  library.impl("_copy_from", VK_FN(copy_from));
  library.impl("_copy_from_and_resize", VK_FN(copy_from_and_resize));
  library.impl("_local_scalar_dense", VK_FN(local_scalar_dense));
  library.impl("record_stream", TORCH_FN(record_stream));
  library.impl("set_", VK_FN(set_empty));
  library.impl("set_.source_Tensor", VK_FN(set_tensor));
  library.impl("set_.source_Storage", VK_FN(set_storage));
  library.impl("set_.source_Storage_storage_offset", VK_FN(set_storage_with_sizes));
}

// torch would resolve conjugated and negated views by copying, for which it calls _copy_from.
TORCH_LIBRARY_IMPL(aten, Conjugate, library) {
  library.impl("_copy_from", torch::CppFunction::makeFallthrough());
}
TORCH_LIBRARY_IMPL(aten, Negative, library) {
  library.impl("_copy_from", torch::CppFunction::makeFallthrough());
}

}  // namespace
}  // namespace q8ta::device
