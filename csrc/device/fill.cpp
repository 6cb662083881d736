// Filling tensors of any type on the device. The value comes as an argument of the kernel: nothing is
// uploaded, so that graphs can hold it.
#include "kernels/fill.h"

#include <ATen/Functions.h>
#include <ATen/Operators.h>
#include <ATen/native/CPUFallback.h>
#include <torch/library.h>

#include <algorithm>

#include "device/fallback.h"
#include "device/out_of_memory.h"
#include "device/tensor_memory.h"
#include "vulkan/device_stream.h"

namespace q8ta::device {
namespace {

/// Whether the tensor's elements lie in whole words without gaps, where a binding can start.
bool is_whole_words(const at::Tensor& tensor) {
  return tensor.is_non_overlapping_and_dense() && tensor.nbytes() % 4 == 0 &&
         starts_binding(tensor, vulkan_device_of(tensor));
}

void fill_words(const at::Tensor& tensor, const vulkan::BufferRange& range, const kernels::FillValue& value) {
  vulkan_device_of(tensor).stream().record([&](vulkan::Recorder& recorder) {
    for (VkDeviceSize first = 0; first < range.size; first += kernels::kFilledInDispatch) {
      const VkDeviceSize bytes = std::min(kernels::kFilledInDispatch, range.size - first);
      kernels::record_fill(recorder, value, range.subrange(first, bytes), "fill");
    }
  });
}

at::Tensor& vk_fill_(at::Tensor& self, const at::Scalar& value) {
  if (self.numel() == 0) return self;
  const at::Tensor element = at::full({}, value, self.options().device(at::kCPU));
  const kernels::FillValue words(
      {static_cast<const std::byte*>(element.const_data_ptr()), static_cast<size_t>(element.element_size())});
  if (is_whole_words(self)) {
    fill_words(self, memory_of(self), words);
    return self;
  }
  const at::Tensor one = at::empty({}, self.options());  // its memory is more than a word
  fill_words(one, memory_from(one, words.period() * int64_t{4}), words);
  return self.copy_(one.expand(self.sizes()));
}

at::Tensor& fill_with_tensor(at::Tensor& self, const at::Tensor& value) {
  if (value.dim() == 0 && value.is_cpu()) return vk_fill_(self, value.item());
  if (value.dim() == 0 && value.device() == self.device() && value.dtype() == self.dtype()) {
    return self.copy_(value.clone().expand(self.sizes()));  // value may be one of self's
  }
  return at::native::call_fallback_fn<&run_on_cpu, at::_ops::fill__Tensor>::call(self, value);
}

at::Tensor& vk_zero_(at::Tensor& self) { return vk_fill_(self, 0); }

}  // namespace

TORCH_LIBRARY_IMPL(aten, PrivateUse1, library) {
  library.impl("fill_.Scalar", VK_FN(vk_fill_));
  library.impl("fill_.Tensor", VK_FN(fill_with_tensor));
  library.impl("zero_", VK_FN(vk_zero_));
}

}  // namespace q8ta::device
