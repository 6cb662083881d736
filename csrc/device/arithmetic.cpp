// Arithmetic and limits, element by element: float32 of any strides and broadcasting, maximum and minimum of
// int8, too. What the kernels do not cover runs on the CPU as any operator without one.
#include <ATen/Functions.h>
#include <ATen/Operators.h>
#include <ATen/TensorIterator.h>
#include <ATen/native/CPUFallback.h>
#include <torch/library.h>

#include <bit>
#include <cmath>
#include <limits>

#include "device/allocator.h"
#include "device/elementwise.h"
#include "device/fallback.h"
#include "device/out_of_memory.h"
#include "device/strided.h"
#include "device/tensor_memory.h"
#include "kernels/elementwise.h"
#include "vulkan/device_stream.h"

namespace q8ta::device {
namespace {

using kernels::ByteMap;
using kernels::ByteOp;
using kernels::FloatMap;
using kernels::FloatOp;
using kernels::NumberOperand;

constexpr int64_t kBytes = sizeof(float);

/// Device memory of an iterator's operand from its first element to behind its last one.
vulkan::BufferRange operand_memory(const at::TensorIteratorBase& iterator, int operand) {
  int64_t bytes = kBytes;
  for (int d = 0; d < iterator.ndim(); ++d) {
    bytes += (iterator.shape()[d] - 1) * iterator.strides(operand)[d];
  }
  const c10::DataPtr& data = iterator.tensor_base(operand).storage().data_ptr();
  const auto offset =
      static_cast<std::byte*>(iterator.data_ptr(operand)) - static_cast<std::byte*>(data.get());
  return memory_of(data).subrange(static_cast<VkDeviceSize>(offset), static_cast<VkDeviceSize>(bytes));
}

/// Queues y = op(...) for the operands of the iterator: y, then the tensors. False, and nothing done, if the
/// iterator has more dimensions than the kernel takes.
bool record_floats(at::TensorIteratorBase& iterator, FloatOp op, NumberOperand number, float low, float high,
                   const char* name) {
  if (iterator.numel() == 0) return true;
  const bool strided = !iterator.is_contiguous();
  if (strided && static_cast<size_t>(iterator.ndim()) > FloatMap::kMaxDimensions) return false;
  vulkan::Device& device = vulkan_device_of(iterator.tensor(0));
  const auto most = static_cast<VkDeviceSize>(device.max_binding_bytes()) - device.binding_alignment();
  std::array<vulkan::ByteRange, 3> memory;
  bool fits = iterator.numel() <= kernels::kElementsInDispatch;
  for (int i = 0; i < iterator.ntensors(); ++i) {
    const vulkan::BufferRange range = operand_memory(iterator, i);
    fits = fits && range.size <= most;
    memory[i] = readable_from(device, range);
  }
  if (!fits) {
    const std::unique_ptr<at::TensorIterator> rest = iterator.split(iterator.get_dim_to_split());
    return record_floats(*rest, op, number, low, high, name) &&
           record_floats(iterator, op, number, low, high, name);
  }

  const int a = number == NumberOperand::a ? 0 : 1;
  const int b = iterator.ntensors() - 1;
  FloatMap map;
  map.count = static_cast<uint32_t>(iterator.numel());
  map.first_y = memory[0].first_byte / kBytes;
  map.first_a = memory[a].first_byte / kBytes;
  map.first_b = memory[b].first_byte / kBytes;
  map.low = low;
  map.high = high;
  if (strided) {
    map.dimensions = static_cast<uint32_t>(iterator.ndim());
    for (uint32_t d = 0; d < map.dimensions; ++d) {  // the iterator's first dimension is the innermost
      const uint32_t from = map.dimensions - 1 - d;
      const auto stride = [&](int operand) {
        return static_cast<uint32_t>(iterator.strides(operand)[from] / kBytes);
      };
      map.sizes[d] = static_cast<uint32_t>(iterator.shape()[from]);
      map.y_strides[d] = stride(0);
      map.a_strides[d] = stride(a);
      map.b_strides[d] = stride(b);
    }
  }
  device.stream().record([&](vulkan::Recorder& recorder) {
    kernels::record_float_map(recorder, op, number, map, memory[a].range, memory[b].range, memory[0].range,
                              name);
  });
  return true;
}

bool is_device_float(const at::Tensor& tensor) {
  return tensor.is_privateuseone() && tensor.scalar_type() == at::kFloat;
}

/// A number that torch made a tensor of, or a 0-dim tensor on the CPU, which torch treats alike.
bool is_number(const at::Tensor& tensor) { return tensor.is_cpu() && tensor.dim() == 0; }

/// The number as the CPU's kernels have it: converted to float32, to infinity if it is too large.
float number_of(const at::Tensor& tensor) {
  const at::Scalar value = tensor.item();
  return value.isFloatingPoint() ? static_cast<float>(value.toDouble()) : static_cast<float>(value.toLong());
}

bool has_reciprocal(float number) {
  int exponent = 0;
  return std::abs(std::frexp(number, &exponent)) == 0.5F && std::isnormal(1.0F / number);
}

/// out = op(a), where a number is the other operand or limits a clamp.
bool map_with_numbers(FloatOp op, NumberOperand number, const at::Tensor& a, float low, float high,
                      at::Tensor& out, const char* name) {
  if (!is_device_float(a) || (out.defined() && !is_device_float(out))) return false;
  at::TensorIterator iterator =
      at::TensorIteratorConfig().set_check_mem_overlap(true).add_output(out).add_const_input(a).build();
  if (!record_floats(iterator, op, number, low, high, name)) return false;
  out = iterator.output();
  return true;
}

/// Broadcasts, makes or resizes out, and refuses what overlaps.
at::TensorIterator of_two(const at::Tensor& a, const at::Tensor& b, const at::Tensor& out) {
  return at::TensorIteratorConfig()
      .set_check_mem_overlap(true)
      .add_output(out)
      .add_const_input(a)
      .add_const_input(b)
      .build();
}

/// out = op(a, b), made where it is undefined. False, and nothing done, if no kernel does it.
bool float_op(FloatOp op, const at::Tensor& a, const at::Tensor& b, at::Tensor& out, const char* name) {
  if ((is_number(a) || is_number(b)) && at::result_type(a, b) == at::kFloat) {
    if (is_number(a)) return map_with_numbers(op, NumberOperand::a, b, number_of(a), 0.0F, out, name);
    float number = number_of(b);
    if (op == FloatOp::divide && has_reciprocal(number)) {  // by a power of two: the product is the same
      op = FloatOp::multiply;
      number = 1.0F / number;
    }
    return map_with_numbers(op, NumberOperand::b, a, number, 0.0F, out, name);
  }
  if (!is_device_float(a) || !is_device_float(b) || (out.defined() && !is_device_float(out))) return false;
  at::TensorIterator iterator = of_two(a, b, out);
  if (!record_floats(iterator, op, NumberOperand::none, 0.0F, 0.0F, name)) return false;
  out = iterator.output();
  return true;
}

/// The same for the maximum and minimum of int8 tensors.
bool byte_op(FloatOp op, const at::Tensor& a, const at::Tensor& b, at::Tensor& out, const char* name) {
  const auto is_device_byte = [](const at::Tensor& tensor) {
    return tensor.is_privateuseone() && tensor.scalar_type() == at::kChar;
  };
  if (!is_device_byte(a) || !is_device_byte(b) || (out.defined() && !is_device_byte(out))) return false;
  if (op != FloatOp::maximum && op != FloatOp::minimum) return false;
  const bool made_here = !out.defined();
  at::TensorIterator iterator = of_two(a, b, out);
  out = iterator.output();
  const at::Tensor values = made_here ? out : at::empty(out.sizes(), out.options());
  const ByteMap map{op == FloatOp::maximum ? ByteOp::maximum : ByteOp::minimum};
  map_bytes(a, b, values, map, name);
  if (!made_here) out.copy_(values);
  return true;
}

/// a + alpha * b and a - alpha * b for an alpha of 1 or -1; others are rounded differently from CPU to CPU.
std::optional<FloatOp> with_alpha(FloatOp op) { return op; }
std::optional<FloatOp> with_alpha(FloatOp op, const at::Scalar& alpha) {
  if (alpha.isComplex()) return std::nullopt;
  if (alpha.toDouble() == 1.0) return op;
  if (alpha.toDouble() != -1.0) return std::nullopt;
  return op == FloatOp::add ? FloatOp::subtract : FloatOp::add;
}

/// The three overloads of an operator: `Functional` and so on are its entries in at::_ops.
template <FloatOp op, typename Functional, typename InPlace, typename Out, typename... Alpha>
struct Operator {
  static constexpr const char* name() { return Functional::name + sizeof("aten::") - 1; }

  static bool try_run(const at::Tensor& a, const at::Tensor& b, const Alpha&... alpha, at::Tensor& out) {
    const std::optional<FloatOp> chosen = with_alpha(op, alpha...);
    return chosen && (float_op(*chosen, a, b, out, name()) || byte_op(*chosen, a, b, out, name()));
  }
  static at::Tensor functional(const at::Tensor& a, const at::Tensor& b, const Alpha&... alpha) {
    at::Tensor out;
    if (try_run(a, b, alpha..., out)) return out;
    return at::native::call_fallback_fn<&run_on_cpu, Functional>::call(a, b, alpha...);
  }
  static at::Tensor& in_place(at::Tensor& a, const at::Tensor& b, const Alpha&... alpha) {
    if (try_run(a, b, alpha..., a)) return a;
    return at::native::call_fallback_fn<&run_on_cpu, InPlace>::call(a, b, alpha...);
  }
  static at::Tensor& out(const at::Tensor& a, const at::Tensor& b, const Alpha&... alpha,
                         at::Tensor& result) {
    if (try_run(a, b, alpha..., result)) return result;
    return at::native::call_fallback_fn<&run_on_cpu, Out>::call(a, b, alpha..., result);
  }
};

namespace ops = at::_ops;
using Add = Operator<FloatOp::add, ops::add_Tensor, ops::add__Tensor, ops::add_out, at::Scalar>;
using Sub = Operator<FloatOp::subtract, ops::sub_Tensor, ops::sub__Tensor, ops::sub_out, at::Scalar>;
using Mul = Operator<FloatOp::multiply, ops::mul_Tensor, ops::mul__Tensor, ops::mul_out>;
using Div = Operator<FloatOp::divide, ops::div_Tensor, ops::div__Tensor, ops::div_out>;
using Maximum = Operator<FloatOp::maximum, ops::maximum, void, ops::maximum_out>;
using Minimum = Operator<FloatOp::minimum, ops::minimum, void, ops::minimum_out>;

using Limit = std::optional<at::Scalar>;

bool clamp_floats(const at::Tensor& self, const Limit& low, const Limit& high, at::Tensor& out) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const auto is_real = [](const Limit& limit) { return !limit || !limit->isComplex(); };
  if (!is_device_float(self) || !is_real(low) || !is_real(high) || !(low || high)) return false;
  const float from = low ? low->toFloat() : -kInfinity;
  const float to = high ? high->toFloat() : kInfinity;
  if (std::isnan(from) || std::isnan(to)) return false;
  return map_with_numbers(FloatOp::clamp, NumberOperand::none, self, from, to, out, "clamp");
}

bool clamp_bytes(const at::Tensor& self, const Limit& low, const Limit& high, at::Tensor& out) {
  if (self.scalar_type() != at::kChar || !(low || high)) return false;
  const auto fits = [](const Limit& limit) {
    return !limit || (limit->isIntegral(false) && limit->toLong() >= -128 && limit->toLong() <= 127);
  };
  if (!fits(low) || !fits(high)) return false;
  ByteMap map{ByteOp::clamp};
  map.low = low ? low->toInt() : -128;
  map.high = high ? high->toInt() : 127;
  if (map.low > map.high) return false;
  if (!out.defined()) {
    out = map_bytes(self, at::kChar, map, "clamp");
    return true;
  }
  if (out.scalar_type() != at::kChar || out.device() != self.device()) return false;
  // Resizes out, and refuses what overlaps.
  at::TensorIteratorConfig().set_check_mem_overlap(true).add_output(out).add_const_input(self).build();
  out.copy_(map_bytes(self, at::kChar, map, "clamp"));
  return true;
}

/// Limits that are no integers make float32 of int8.
bool clamp_bytes_to_floats(const at::Tensor& self, const Limit& low, const Limit& high, at::Tensor& out) {
  const auto is_floating = [](const Limit& limit) { return limit && limit->isFloatingPoint(); };
  if (self.scalar_type() != at::kChar || !(is_floating(low) || is_floating(high))) return false;
  if (at::result_type(self, at::Scalar(0.5)) != at::kFloat) return false;  // the default dtype
  ByteMap map{ByteOp::dequantize};
  map.quantization.input_scale = 1.0F;
  return clamp_floats(map_bytes(self, at::kFloat, map, "clamp"), low, high, out);
}

at::Tensor vk_clamp(const at::Tensor& self, const Limit& low, const Limit& high) {
  at::Tensor out;
  if (clamp_floats(self, low, high, out) || clamp_bytes(self, low, high, out) ||
      clamp_bytes_to_floats(self, low, high, out)) {
    return out;
  }
  return at::native::call_fallback_fn<&run_on_cpu, ops::clamp>::call(self, low, high);
}

at::Tensor& vk_clamp_out(const at::Tensor& self, const Limit& low, const Limit& high, at::Tensor& out) {
  if (clamp_floats(self, low, high, out) || clamp_bytes(self, low, high, out)) return out;
  return at::native::call_fallback_fn<&run_on_cpu, ops::clamp_out>::call(self, low, high, out);
}

at::Tensor& vk_clamp_(at::Tensor& self, const Limit& low, const Limit& high) {
  if (clamp_floats(self, low, high, self) || clamp_bytes(self, low, high, self)) return self;
  return at::native::call_fallback_fn<&run_on_cpu, ops::clamp_>::call(self, low, high);
}

at::Tensor clamp_min(const at::Tensor& self, const at::Scalar& low) {
  return vk_clamp(self, low, std::nullopt);
}
at::Tensor& clamp_min_(at::Tensor& self, const at::Scalar& low) { return vk_clamp_(self, low, std::nullopt); }
at::Tensor clamp_max(const at::Tensor& self, const at::Scalar& high) {
  return vk_clamp(self, std::nullopt, high);
}
at::Tensor& clamp_max_(at::Tensor& self, const at::Scalar& high) {
  return vk_clamp_(self, std::nullopt, high);
}
at::Tensor relu(const at::Tensor& self) { return vk_clamp(self, at::Scalar(0), std::nullopt); }
at::Tensor& relu_(at::Tensor& self) { return vk_clamp_(self, at::Scalar(0), std::nullopt); }

at::Tensor hardtanh(const at::Tensor& self, const at::Scalar& low, const at::Scalar& high) {
  at::Tensor out;
  if (clamp_floats(self, low, high, out)) return out;
  return at::native::call_fallback_fn<&run_on_cpu, ops::hardtanh>::call(self, low, high);
}
at::Tensor& hardtanh_(at::Tensor& self, const at::Scalar& low, const at::Scalar& high) {
  if (clamp_floats(self, low, high, self)) return self;
  return at::native::call_fallback_fn<&run_on_cpu, ops::hardtanh_>::call(self, low, high);
}

at::Tensor neg(const at::Tensor& self) {
  at::Tensor out;
  if (map_with_numbers(FloatOp::negate, NumberOperand::none, self, 0.0F, 0.0F, out, "neg")) return out;
  return at::native::call_fallback_fn<&run_on_cpu, ops::neg>::call(self);
}

at::Tensor reciprocal(const at::Tensor& self) {
  at::Tensor out;
  if (map_with_numbers(FloatOp::divide, NumberOperand::a, self, 1.0F, 0.0F, out, "reciprocal")) return out;
  return at::native::call_fallback_fn<&run_on_cpu, ops::reciprocal>::call(self);
}

template <typename Overloads>
void register_out(torch::Library& library, const char* functional, const char* out) {
  library.impl(functional, VK_FN(Overloads::functional));
  library.impl(out, VK_FN(Overloads::out));
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, library) {
  register_out<Add>(library, "add.Tensor", "add.out");
  register_out<Sub>(library, "sub.Tensor", "sub.out");
  register_out<Mul>(library, "mul.Tensor", "mul.out");
  register_out<Div>(library, "div.Tensor", "div.out");
  register_out<Maximum>(library, "maximum", "maximum.out");
  register_out<Minimum>(library, "minimum", "minimum.out");
  library.impl("add_.Tensor", VK_FN(Add::in_place));
  library.impl("sub_.Tensor", VK_FN(Sub::in_place));
  library.impl("mul_.Tensor", VK_FN(Mul::in_place));
  library.impl("div_.Tensor", VK_FN(Div::in_place));
  library.impl("clamp", VK_FN(vk_clamp));
  library.impl("clamp_", VK_FN(vk_clamp_));
  library.impl("clamp.out", VK_FN(vk_clamp_out));
  library.impl("clamp_min", VK_FN(clamp_min));
  library.impl("clamp_min_", VK_FN(clamp_min_));
  library.impl("clamp_max", VK_FN(clamp_max));
  library.impl("clamp_max_", VK_FN(clamp_max_));
  library.impl("relu", VK_FN(relu));
  library.impl("relu_", VK_FN(relu_));
  library.impl("hardtanh", VK_FN(hardtanh));
  library.impl("hardtanh_", VK_FN(hardtanh_));
  library.impl("neg", VK_FN(neg));
  library.impl("reciprocal", VK_FN(reciprocal));
}

}  // namespace
}  // namespace q8ta::device
