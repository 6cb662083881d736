// The maximum over all or some dimensions of float32 and int8 tensors, and where it is, on the device.
#include <ATen/Operators.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/native/Resize.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <limits>
#include <optional>
#include <tuple>
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

/// What the kernels take: float32 or int8, and positions that they can count.
bool is_taken(const at::Tensor& x) {
  return (x.scalar_type() == at::kFloat || x.scalar_type() == at::kChar) && x.numel() > 0 &&
         x.numel() <= std::numeric_limits<int32_t>::max();
}

/// A reduction of x, and the memory that holds it.
struct Reduction {
  Maximum maximum;
  vulkan::ByteRange memory;
};

/// Over these dimensions, in one part; empty where the kernels do not reach.
std::optional<Reduction> reduction_of(const at::Tensor& x, const std::vector<bool>& dims, int64_t outputs) {
  Reduction reduction;
  Maximum& maximum = reduction.maximum;
  if (!append_dimensions(x, dims, false, maximum) || !append_dimensions(x, dims, true, maximum)) return {};
  vulkan::Device& device = vulkan_device_of(x);
  reduction.memory = readable_from(device, memory_of(x));
  if (reduction.memory.range.size > device.max_binding_bytes()) return {};
  maximum.count = static_cast<uint32_t>(outputs);
  maximum.reduced = static_cast<uint32_t>(x.numel() / outputs);
  maximum.first_x = reduction.memory.first_byte / static_cast<uint32_t>(x.element_size());
  return reduction;
}

/// Whole words that hold so many elements of the dtype of x.
VkDeviceSize words_for(const at::Tensor& x, int64_t count) {
  return vulkan::round_up(static_cast<VkDeviceSize>(count) * x.element_size(), 4);
}

/// y = the maxima over these dimensions of x; false, and nothing done, where the kernel does not reach.
bool reduce(const at::Tensor& x, const std::vector<bool>& dims, const at::Tensor& y, const char* op) {
  const int64_t outputs = y.numel();
  const std::optional<Reduction> reduction = reduction_of(x, dims, outputs);
  if (!reduction) return false;
  const bool floats = x.scalar_type() == at::kFloat;
  Maximum maximum = reduction->maximum;
  maximum.parts = parts_for(outputs, maximum.reduced);
  maximum.count *= maximum.parts;
  const vulkan::BufferRange memory = reduction->memory.range;
  const vulkan::BufferRange result = memory_of(y).subrange(0, words_for(x, outputs));
  const auto work = [&](vulkan::Recorder& recorder) {
    if (maximum.parts == 1) {
      kernels::record_maximum(recorder, floats, maximum, memory, result, op);
      return;
    }
    const vulkan::BufferRange partial = recorder.scratch(words_for(x, maximum.count));
    kernels::record_maximum(recorder, floats, maximum, memory, partial, op);
    Maximum rest;
    rest.count = static_cast<uint32_t>(outputs);
    rest.reduced = maximum.parts;
    rest.dimensions = 1;
    rest.sizes[0] = maximum.count;
    rest.x_strides[0] = 1;
    kernels::record_maximum(recorder, floats, rest, partial, result, op);
  };
  kernels::with_spare_memory([&] { vulkan_device_of(x).stream().record(work); });
  return true;
}

std::vector<int64_t> sizes_without(const at::Tensor& x, const std::vector<bool>& dims, bool keepdim) {
  std::vector<int64_t> sizes;
  for (int64_t d = 0; d < x.dim(); ++d) {
    if (!dims[d]) sizes.push_back(x.size(d));
    if (dims[d] && keepdim) sizes.push_back(1);
  }
  return sizes;
}

/// The maxima over `dim` (all dimensions if it is empty); undefined where the CPU has to do it, or to refuse.
at::Tensor try_amax(const at::Tensor& x, at::IntArrayRef dim, bool keepdim, const char* op) {
  if (!is_taken(x)) return {};
  std::vector<bool> dims(std::max<size_t>(x.dim(), 1), dim.empty());
  for (const int64_t each : dim) {
    const int64_t wrapped = c10::maybe_wrap_dim(each, x.dim());
    if (dims[wrapped]) return {};  // named twice
    dims[wrapped] = true;
  }
  at::Tensor y = at::empty(sizes_without(x, dims, keepdim), x.options());
  return reduce(x, dims, y, op) ? y : at::Tensor();
}

/// Where the maxima over `dim`, or over all of x, are, and these; undefined where the CPU has to do it.
struct Positions {
  at::Tensor values, indices;
};

Positions try_positions(const at::Tensor& x, std::optional<int64_t> dim, bool keepdim, bool with_values,
                        const char* op) {
  if (!is_taken(x)) return {};
  std::vector<bool> dims(std::max<size_t>(x.dim(), 1), !dim);
  if (dim) dims[c10::maybe_wrap_dim(*dim, x.dim())] = true;
  const std::vector<int64_t> sizes = sizes_without(x, dims, keepdim);
  Positions found{{}, at::empty(sizes, x.options().dtype(at::kLong))};
  const int64_t outputs = found.indices.numel();
  const std::optional<Reduction> reduction = reduction_of(x, dims, outputs);
  if (!reduction) return {};
  std::optional<vulkan::BufferRange> values;
  if (with_values) {
    found.values = at::empty(sizes, x.options());
    values = memory_of(found.values).subrange(0, words_for(x, outputs));
  }
  const vulkan::BufferRange indices = memory_of(found.indices).subrange(0, words_for(found.indices, outputs));
  if (indices.size > vulkan_device_of(x).max_binding_bytes()) return {};
  kernels::with_spare_memory([&] {
    vulkan_device_of(x).stream().record([&](vulkan::Recorder& recorder) {
      kernels::record_maximum_index(recorder, x.scalar_type() == at::kFloat, reduction->maximum,
                                    reduction->memory.range, values, indices, op);
    });
  });
  return found;
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

std::tuple<at::Tensor, at::Tensor> max_dim(const at::Tensor& self, int64_t dim, bool keepdim) {
  const Positions found = try_positions(self, dim, keepdim, /*with_values=*/true, "max");
  if (found.indices.defined()) return {found.values, found.indices};
  return at::native::call_fallback_fn<&run_on_cpu, at::_ops::max_dim>::call(self, dim, keepdim);
}

at::Tensor argmax(const at::Tensor& self, std::optional<int64_t> dim, bool keepdim) {
  const Positions found = try_positions(self, dim, keepdim, /*with_values=*/false, "argmax");
  if (found.indices.defined()) return found.indices;
  return at::native::call_fallback_fn<&run_on_cpu, at::_ops::argmax>::call(self, dim, keepdim);
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, library) {
  library.impl("argmax", VK_FN(argmax));
  library.impl("max.dim", VK_FN(max_dim));
  library.impl("amax", VK_FN(amax));
  library.impl("amax.out", VK_FN(amax_out));
  library.impl("max", VK_FN(max));
}

}  // namespace
}  // namespace q8ta::device
