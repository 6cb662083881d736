// Quantization on the device, and what joins tensors of any type.
#include "device/elementwise.h"

#include <ATen/Functions.h>
#include <ATen/MemoryOverlap.h>
#include <ATen/Operators.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/native/Resize.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "device/fallback.h"
#include "device/messages.h"
#include "device/out_of_memory.h"
#include "device/tensor_memory.h"
#include "kernels/layout.h"
#include "ops/linear_checks.h"
#include "vulkan/device_stream.h"

namespace q8ta::device {
namespace {

using kernels::ByteMap;
using kernels::ByteOp;

/// Calls `record(recorder, first element, number of elements)` for parts that fit into a dispatch.
template <typename Record>
void for_each_part(const at::Tensor& like, Record record) {
  vulkan_device_of(like).stream().record([&](vulkan::Recorder& recorder) {
    for (int64_t first = 0; first < like.numel(); first += kernels::kElementsInDispatch) {
      record(recorder, first, std::min(kernels::kElementsInDispatch, like.numel() - first));
    }
  });
}

/// x with the sizes and strides of `like`, in a place that a binding can start at: the kernels go through
/// memory in order.
at::Tensor laid_out_like(const at::Tensor& like, const at::Tensor& x) {
  if (x.sizes() == like.sizes() && x.strides() == like.strides() && starts_binding(x, vulkan_device_of(x)))
    return x;
  return at::empty_strided(like.sizes(), like.strides(), x.options()).copy_(x);
}

/// Elements first .. first + count - 1 in the order of a dense tensor's memory, in whole words.
vulkan::BufferRange part(const at::Tensor& tensor, int64_t first, int64_t count) {
  const auto bytes = static_cast<int64_t>(tensor.element_size());
  vulkan::BufferRange range = memory_of(tensor);
  range.offset += static_cast<VkDeviceSize>(first * bytes);
  range.size = vulkan::round_up(static_cast<VkDeviceSize>(count * bytes), 4);
  return range;
}

}  // namespace

void map_bytes(const at::Tensor& x, const at::Tensor& other, const at::Tensor& to, const ByteMap& map,
               const char* op) {
  const at::Tensor from = laid_out_like(to, x);
  const at::Tensor second = other.is_same(x) ? from : laid_out_like(to, other);
  for_each_part(to, [&](vulkan::Recorder& recorder, int64_t first, int64_t count) {
    kernels::record_byte_map(recorder, map, part(from, first, count), part(second, first, count),
                             part(to, first, count), static_cast<uint32_t>(count), op);
  });
}

at::Tensor map_bytes(const at::Tensor& x, at::ScalarType type, const ByteMap& map, const char* op) {
  at::Tensor to = at::empty_like(x, x.options().dtype(type));
  map_bytes(x, x, to, map, op);
  return to;
}

namespace {

bool is_byte(at::ScalarType type) { return type == at::kChar || type == at::kByte; }

/// Calls the operator with CPU tensors: it computes, or raises its own error.
template <typename... Arguments>
at::Tensor call_on_cpu(const char* name, Arguments... arguments) {
  torch::jit::Stack stack;
  torch::jit::push(stack, arguments...);
  run_on_cpu(c10::Dispatcher::singleton().findSchemaOrThrow(name, ""), &stack);
  return torch::jit::pop(stack).toTensor();
}

/// What is subtracted from and added to 8-bit values exactly, in int32 and in float32.
bool is_small(int64_t zero_point) {
  constexpr int64_t kLargest = int64_t{1} << 23;
  return -kLargest <= zero_point && zero_point <= kLargest;
}

bool kernel_quantizes(const at::Tensor& input, float inverse_scale, int64_t zero_point, int64_t quant_min,
                      int64_t quant_max, at::ScalarType dtype) {
  const int64_t lowest = dtype == at::kChar ? -128 : 0;
  return input.scalar_type() == at::kFloat && is_byte(dtype) && std::isfinite(inverse_scale) &&
         inverse_scale != 0 && is_small(zero_point) && lowest <= quant_min && quant_min <= quant_max &&
         quant_max <= lowest + 255;
}

at::Tensor quantize_per_tensor(const at::Tensor& input, double scale, int64_t zero_point, int64_t quant_min,
                               int64_t quant_max, at::ScalarType dtype) {
  const auto inverse_scale = static_cast<float>(1.0 / scale);
  if (!kernel_quantizes(input, inverse_scale, zero_point, quant_min, quant_max, dtype)) {
    return call_on_cpu("quantized_decomposed::quantize_per_tensor", input, scale, zero_point, quant_min,
                       quant_max, dtype);
  }
  ByteMap map{ByteOp::quantize};
  // A driver may take a subnormal reciprocal for zero. Two exact factors in its place have the same product,
  // but for results so small that they round to zero.
  const float raised = std::fpclassify(inverse_scale) == FP_SUBNORMAL ? 0x1p24F : 1.0F;
  map.quantization.input_scale = 1.0F / raised;
  map.quantization.inverse_output_scale = inverse_scale * raised;
  map.quantization.output_zero_point = static_cast<int32_t>(zero_point);
  map.low = static_cast<int32_t>(quant_min);
  map.high = static_cast<int32_t>(quant_max);
  map.is_signed = dtype == at::kChar;
  return map_bytes(input, dtype, map, "quantize_per_tensor");
}

at::Tensor dequantize_per_tensor(const at::Tensor& input, double scale, int64_t zero_point, int64_t quant_min,
                                 int64_t quant_max, at::ScalarType dtype,
                                 std::optional<at::ScalarType> out_dtype) {
  const bool has_kernel = is_byte(dtype) && input.scalar_type() == dtype &&
                          out_dtype.value_or(at::kFloat) == at::kFloat && is_small(zero_point) &&
                          std::isfinite(static_cast<float>(scale));
  if (!has_kernel) {
    return call_on_cpu("quantized_decomposed::dequantize_per_tensor", input, scale, zero_point, quant_min,
                       quant_max, dtype, out_dtype);
  }
  ByteMap map{ByteOp::dequantize};
  map.quantization.input_scale = static_cast<float>(scale);
  map.quantization.input_zero_point = static_cast<int32_t>(zero_point);
  map.is_signed = dtype == at::kChar;
  return map_bytes(input, at::kFloat, map, "dequantize_per_tensor");
}

at::Tensor requantize(const at::Tensor& x, double input_scale, int64_t input_zero_point, double output_scale,
                      int64_t output_zero_point) {
  ops::check_type("requantize", "x", x, at::kChar);
  ByteMap map{ByteOp::requantize};
  map.quantization =
      ops::check_quantization("requantize", input_scale, input_zero_point, output_scale, output_zero_point);
  return map_bytes(x, at::kChar, map, "requantize");
}

/// As in torch: an empty 1-D tensor counts as nothing. Other oddities are the CPU's to refuse.
bool are_alike(const at::MaterializedITensorListRef& parts) {
  const at::Tensor& first = parts.front().get();
  return std::all_of(parts.begin(), parts.end(), [&](const at::Tensor& each) {
    return each.scalar_type() == first.scalar_type() && each.device() == first.device() &&
           each.dim() == first.dim() && each.dim() > 0;
  });
}

at::Tensor vk_cat(const at::ITensorListRef& tensors, int64_t dim) {
  const auto parts = tensors.materialize();
  const at::Tensor& first = parts.front().get();
  if (!are_alike(parts)) return at::native::call_fallback_fn<&run_on_cpu, at::_ops::cat>::call(tensors, dim);
  const int64_t along = c10::maybe_wrap_dim(dim, first.dim());
  std::vector<int64_t> sizes = first.sizes().vec();
  sizes[along] = 0;
  for (const at::Tensor& each : parts) {
    for (int64_t d = 0; d < first.dim(); ++d) {
      TORCH_CHECK(d == along || each.size(d) == first.size(d),
                  message("Sizes of tensors must match except in dimension ", along, ". Expected size ",
                          first.size(d), " but got size ", each.size(d), " in dimension ", d));
    }
    sizes[along] += each.size(along);
  }
  at::Tensor joined = at::empty(sizes, first.options());
  int64_t start = 0;
  for (const at::Tensor& each : parts) {
    joined.narrow(along, start, each.size(along)).copy_(each);
    start += each.size(along);
  }
  return joined;
}

at::Tensor& cat_out(const at::ITensorListRef& tensors, int64_t dim, at::Tensor& out) {
  const auto parts = tensors.materialize();
  const at::Tensor& first = parts.front().get();
  if (!are_alike(parts) || out.dtype() != first.dtype() || out.device() != first.device()) {
    return at::native::call_fallback_fn<&run_on_cpu, at::_ops::cat_out>::call(tensors, dim, out);
  }
  for (const at::Tensor& each : parts) at::assert_no_overlap(out, each);
  const at::Tensor joined = vk_cat(tensors, dim);
  at::native::resize_output(out, joined.sizes());
  return out.copy_(joined);
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, library) {
  library.impl("cat", VK_FN(vk_cat));
  library.impl("cat.out", VK_FN(cat_out));
}

TORCH_LIBRARY_IMPL(quantized_decomposed, PrivateUse1, library) {
  library.impl("quantize_per_tensor", VK_FN(quantize_per_tensor));
  library.impl("dequantize_per_tensor", VK_FN(dequantize_per_tensor));
}

TORCH_LIBRARY_IMPL(q8ta, PrivateUse1, library) { library.impl("requantize", VK_FN(requantize)); }

}  // namespace
}  // namespace q8ta::device
