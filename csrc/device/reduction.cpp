// The maximum over all or some dimensions of float32 and int8 tensors, on the device.
#include <ATen/Operators.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/native/Resize.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "device/fallback.h"
#include "device/out_of_memory.h"
#include "device/strided.h"
#include "device/tensor_memory.h"
#include "kernels/layout.h"
#include "kernels/maximum.h"
#include "kernels/weight_cache.h"
#include "vulkan/device_stream.h"

namespace q8ta::device {
namespace {

using kernels::Maximum;

/// Appends dimensions of x, outermost first; neighbours that lie like one dimension become one. False if
/// there are more than the kernel takes.
bool append_dimensions(const at::Tensor& x, const std::vector<bool>& reduced, bool wanted, Maximum& maximum) {
  const uint32_t first = maximum.dimensions;
  for (int64_t d = 0; d < x.dim(); ++d) {
    if (reduced[d] != wanted || x.size(d) == 1) continue;
    const auto size = static_cast<uint32_t>(x.size(d));
    const auto stride = static_cast<uint32_t>(x.stride(d));
    uint32_t last = maximum.dimensions;
    if (last > first && maximum.x_strides[last - 1] == stride * size) {
      maximum.sizes[--last] *= size;
    } else {
      if (last == Maximum::kMaxDimensions) return false;
      maximum.sizes[last] = size;
      ++maximum.dimensions;
    }
    maximum.x_strides[last] = stride;
  }
  return true;
}

/// How many workgroups share one output, so that a few outputs of many elements keep the GPU busy, too.
uint32_t parts_for(int64_t outputs, int64_t reduced) {
  constexpr int64_t kElementsInPart = 4096;
  constexpr int64_t kMostParts = 1024;
  const int64_t wanted = std::min(kernels::ceil_div(reduced, kElementsInPart), kMostParts / outputs);
  if (wanted <= 1) return 1;
  return static_cast<uint32_t>(kernels::ceil_div(reduced, kernels::ceil_div(reduced, wanted)));
}

/// y = the maxima over these dimensions of x; false, and nothing done, where the kernel does not reach.
bool reduce(const at::Tensor& x, const std::vector<bool>& dims, const at::Tensor& y, const char* op) {
  Maximum maximum;
  if (!append_dimensions(x, dims, false, maximum) || !append_dimensions(x, dims, true, maximum)) return false;
  vulkan::Device& device = vulkan_device_of(x);
  const vulkan::ByteRange memory = readable_from(device, memory_of(x));
  if (memory.range.size > device.max_binding_bytes()) return false;
  const bool floats = x.scalar_type() == at::kFloat;
  const int64_t outputs = y.numel();
  const int64_t reduced = x.numel() / outputs;
  maximum.parts = parts_for(outputs, reduced);
  maximum.count = static_cast<uint32_t>(outputs) * maximum.parts;
  maximum.reduced = static_cast<uint32_t>(reduced);
  maximum.first_x = memory.first_byte / static_cast<uint32_t>(x.element_size());
  const auto words = [&](int64_t count) {
    return vulkan::round_up(static_cast<VkDeviceSize>(count) * x.element_size(), 4);
  };
  const vulkan::BufferRange result = memory_of(y).subrange(0, words(outputs));
  const auto work = [&](vulkan::Recorder& recorder) {
    if (maximum.parts == 1) {
      kernels::record_maximum(recorder, floats, maximum, memory.range, result, op);
      return;
    }
    const vulkan::BufferRange partial = recorder.scratch(words(maximum.count));
    kernels::record_maximum(recorder, floats, maximum, memory.range, partial, op);
    Maximum rest;
    rest.count = static_cast<uint32_t>(outputs);
    rest.reduced = maximum.parts;
    rest.dimensions = 1;
    rest.sizes[0] = maximum.count;
    rest.x_strides[0] = 1;
    kernels::record_maximum(recorder, floats, rest, partial, result, op);
  };
  kernels::with_spare_memory([&] { device.stream().record(work); });
  return true;
}

/// The maxima over `dim` (all dimensions if it is empty); undefined where the CPU has to do it, or to refuse.
at::Tensor try_amax(const at::Tensor& x, at::IntArrayRef dim, bool keepdim, const char* op) {
  if (x.scalar_type() != at::kFloat && x.scalar_type() != at::kChar) return {};
  if (x.numel() == 0 || x.numel() > std::numeric_limits<int32_t>::max()) return {};
  std::vector<bool> dims(std::max<size_t>(x.dim(), 1), dim.empty());
  for (const int64_t each : dim) {
    const int64_t wrapped = c10::maybe_wrap_dim(each, x.dim());
    if (dims[wrapped]) return {};  // named twice
    dims[wrapped] = true;
  }
  std::vector<int64_t> sizes;
  for (int64_t d = 0; d < x.dim(); ++d) {
    if (!dims[d]) sizes.push_back(x.size(d));
    if (dims[d] && keepdim) sizes.push_back(1);
  }
  at::Tensor y = at::empty(sizes, x.options());
  return reduce(x, dims, y, op) ? y : at::Tensor();
}

at::Tensor amax(const at::Tensor& self, at::IntArrayRef dim, bool keepdim) {
  const at::Tensor y = try_amax(self, dim, keepdim, "amax");
  if (y.defined()) return y;
  return at::native::call_fallback_fn<&run_on_cpu, at::_ops::amax>::call(self, dim, keepdim);
}

at::Tensor& amax_out(const at::Tensor& self, at::IntArrayRef dim, bool keepdim, at::Tensor& out) {
  if (out.scalar_type() == self.scalar_type() && out.device() == self.device()) {
    const at::Tensor y = try_amax(self, dim, keepdim, "amax");
    if (y.defined()) {
      at::native::resize_output(out, y.sizes());
      return out.copy_(y);
    }
  }
  return at::native::call_fallback_fn<&run_on_cpu, at::_ops::amax_out>::call(self, dim, keepdim, out);
}

at::Tensor max(const at::Tensor& self) {
  const at::Tensor y = try_amax(self, {}, /*keepdim=*/false, "max");
  if (y.defined()) return y;
  return at::native::call_fallback_fn<&run_on_cpu, at::_ops::max>::call(self);
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, library) {
  library.impl("amax", VK_FN(amax));
  library.impl("amax.out", VK_FN(amax_out));
  library.impl("max", VK_FN(max));
}

}  // namespace
}  // namespace q8ta::device
