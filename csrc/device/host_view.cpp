#include "device/host_view.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_strided.h>

#include <utility>

#include "device/allocator.h"
#include "device/messages.h"
#include "device/tensor_memory.h"
#include "vulkan/device_stream.h"

namespace q8ta::device {
namespace {

/// The address that stands for the tensor's first element.
const void* address_of(const at::Tensor& tensor) {
  return static_cast<const std::byte*>(tensor.storage().data_ptr().get()) +
         tensor.storage_offset() * static_cast<int64_t>(tensor.element_size());
}

at::Tensor tensor_in_shared_memory(const at::Tensor& tensor) {
  const at::TensorOptions options = tensor.options().device(at::kCPU);
  if (tensor.numel() == 0) return at::empty_strided(tensor.sizes(), tensor.strides(), options);
  const auto bytes = static_cast<size_t>(span_bytes(tensor));
  c10::Storage storage(c10::Storage::use_byte_size_t(), bytes, shared_with_host(address_of(tensor)),
                       /*allocator=*/nullptr, /*resizable=*/false);
  return at::empty({0}, options).set_(std::move(storage), 0, tensor.sizes(), tensor.strides());
}

void check_tensor(const at::Tensor& tensor) {
  TORCH_CHECK_VALUE(tensor.is_privateuseone(),
                    message("tensor: expected a vk tensor, got one on ", tensor.device()));
  TORCH_CHECK(!tensor.requires_grad(),
              "tensor: the host has no view of a tensor that requires gradients; give it tensor.detach()");
}

}  // namespace

bool is_host_visible(const at::Tensor& tensor) {
  if (tensor.numel() == 0) return vulkan_device_of(tensor).info().host_visible_memory;
  return is_host_visible(address_of(tensor));
}

at::Tensor host_view(const at::Tensor& tensor) {
  check_tensor(tensor);
  vulkan::Device& device = vulkan_device_of(tensor);
  TORCH_CHECK(is_host_visible(tensor),
              message("the memory of this tensor is not host-visible: ", device.info().name,
                      " has it for itself. Copy the tensor with .cpu() instead"));
  device.stream().synchronize_with_host();
  at::Tensor view = tensor_in_shared_memory(tensor);
  view._set_conj(tensor.is_conj());
  view._set_neg(tensor.is_neg());
  if (!tensor.is_inference() && !view.is_inference()) {
    view.unsafeGetTensorImpl()->set_version_counter(tensor.unsafeGetTensorImpl()->version_counter());
  }
  return view;
}

}  // namespace q8ta::device
