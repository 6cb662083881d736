#include "ops/checks.h"

#include <cmath>
#include <cstdio>
#include <limits>
#include <stdexcept>

namespace q8ta::ops {
namespace {

std::string text_of(const std::string& text) { return text; }
std::string text_of(int64_t number) { return std::to_string(number); }
std::string text_of(double number) {
  char text[32];
  std::snprintf(text, sizeof(text), "%g", number);
  return text;
}
std::string text_of(const std::vector<int64_t>& sizes) {
  std::string text = "[";
  for (size_t i = 0; i < sizes.size(); ++i) text += (i > 0 ? ", " : "") + std::to_string(sizes[i]);
  return text + "]";
}

template <typename... Parts>
[[noreturn]] void fail(const char* op, const char* argument, const Parts&... parts) {
  std::string text = std::string("q8ta::") + op + ": " + argument + ": ";
  ((text += text_of(parts)), ...);
  throw std::runtime_error(text);
}

std::vector<int64_t> sizes_of(const Tensor& tensor) {
  const auto sizes = tensor.sizes();
  return {sizes.begin(), sizes.end()};
}

void check_tensor(const char* op, const char* argument, const Tensor& tensor, ScalarType type) {
  if (!tensor.is_cpu()) fail(op, argument, "expected a CPU tensor, as the other tensors are");
  if (tensor.scalar_type() != type) {
    fail(op, argument, "expected ", std::string(torch::headeronly::toString(type)), ", got ",
         std::string(torch::headeronly::toString(tensor.scalar_type())));
  }
}

void check_per_channel(const char* op, const char* argument, const Tensor& tensor, ScalarType type,
                       int64_t N) {
  check_tensor(op, argument, tensor, type);
  const int64_t padded = kernels::ceil_div(N, 4) * 4;
  if (tensor.dim() != 1 || (tensor.numel() != N && tensor.numel() != padded)) {
    fail(op, argument, "expected shape [", N, "] (or [", padded, "], padded to a multiple of 4), got ",
         sizes_of(tensor));
  }
}

float check_scale(const char* op, const char* argument, double scale) {
  const auto value = static_cast<float>(scale);
  if (!std::isfinite(value) || !(value > 0.0F)) {
    fail(op, argument, "expected a finite number > 0 in float32, got ", scale);
  }
  return value;
}

int32_t check_zero_point(const char* op, const char* argument, int64_t zero_point) {
  if (zero_point < -128 || zero_point > 127) {
    fail(op, argument, "expected a value in [-128, 127], got ", zero_point);
  }
  return static_cast<int32_t>(zero_point);
}

}  // namespace

kernels::Quantization check_quantization(const char* op, double input_scale, int64_t input_zero_point,
                                         double output_scale, int64_t output_zero_point) {
  kernels::Quantization checked;
  checked.input_scale = check_scale(op, "input_scale", input_scale);
  checked.input_zero_point = check_zero_point(op, "input_zero_point", input_zero_point);
  check_scale(op, "output_scale", output_scale);
  checked.inverse_output_scale = static_cast<float>(1.0 / output_scale);
  if (!std::isfinite(checked.inverse_output_scale) || checked.inverse_output_scale == 0.0F) {
    fail(op, "output_scale", "expected a number whose reciprocal is a finite float32 > 0, got ",
         output_scale);
  }
  checked.output_zero_point = check_zero_point(op, "output_zero_point", output_zero_point);
  return checked;
}

void check_requantize(const Tensor& x) { check_tensor("requantize", "x", x, ScalarType::Char); }

CheckedLinear check_linear(const LinearArguments& arguments) {
  const char* op = arguments.op;
  CheckedLinear checked;
  kernels::LinearProblem& problem = checked.problem;
  problem.op = op;

  check_tensor(op, "x", arguments.x, ScalarType::Char);
  check_tensor(op, "weights", arguments.weights, ScalarType::Char);
  if (arguments.x.dim() < 1) fail(op, "x", "expected shape [..., K], got a scalar");
  if (arguments.weights.dim() != 2) {
    fail(op, "weights", "expected shape [N, K], got ", sizes_of(arguments.weights));
  }
  const int64_t N = arguments.weights.size(0);
  const int64_t K = arguments.weights.size(1);
  if (N < 1 || K < 1) {
    fail(op, "weights", "expected at least one row and one column, got ", sizes_of(arguments.weights));
  }
  if (N > std::numeric_limits<int32_t>::max()) fail(op, "weights", "expected N below 2^31, got ", N);
  if (K > kernels::kMaxK) {
    fail(op, "weights", "expected K of at most ", kernels::kMaxK,
         " (beyond it an int32 accumulator can overflow), got ", K);
  }
  checked.output_sizes = sizes_of(arguments.x);
  if (checked.output_sizes.back() != K) {
    fail(op, "x", "expected last size ", K, " (the K of weights), got ", checked.output_sizes);
  }
  checked.output_sizes.back() = N;
  checked.M = arguments.x.numel() / K;

  check_per_channel(op, "weight_sums", arguments.weight_sums, ScalarType::Int, N);
  check_per_channel(op, "weight_scales", arguments.weight_scales, ScalarType::Float, N);
  if (arguments.bias) check_per_channel(op, "bias", *arguments.bias, ScalarType::Float, N);

  problem.K = static_cast<uint32_t>(K);
  problem.N = static_cast<uint32_t>(N);
  problem.quantization = check_quantization(op, arguments.input_scale, arguments.input_zero_point,
                                            arguments.output_scale, arguments.output_zero_point);
  problem.relu = arguments.activation == "relu";
  if (!problem.relu && arguments.activation != "none") {
    fail(op, "activation", "expected 'none' or 'relu', got '", arguments.activation, "'");
  }
  return checked;
}

void check_weight_scales(const char* op, const float* weight_scales, int64_t N) {
  for (int64_t n = 0; n < N; ++n) {
    if (!std::isfinite(weight_scales[n]) || !(weight_scales[n] > 0.0F)) {
      fail(op, "weight_scales", "expected finite numbers > 0, got ", weight_scales[n], " at index ", n);
    }
  }
}

kernels::Layout check_layout(const char* op, int64_t layout) {
  const auto value = static_cast<kernels::Layout>(layout);
  if (value != kernels::Layout::packed_int8_4h4w && value != kernels::Layout::packed_int8_4w) {
    fail(op, "layout", "expected 4 (PACKED_INT8_4H4W) or 5 (PACKED_INT8_4W), got ", layout);
  }
  return value;
}

namespace {

kernels::Matrices matrices_of(const std::vector<int64_t>& sizes) {
  kernels::Matrices matrices{1, sizes[sizes.size() - 2], sizes[sizes.size() - 1]};
  for (size_t i = 0; i + 2 < sizes.size(); ++i) matrices.count *= sizes[i];
  return matrices;
}

}  // namespace

std::vector<int64_t> packed_sizes(const std::vector<int64_t>& sizes, kernels::Layout layout) {
  std::vector<int64_t> packed = sizes;
  packed.back() = kernels::ceil_div(packed.back(), 4);
  if (layout == kernels::Layout::packed_int8_4h4w) {
    packed[packed.size() - 2] = kernels::ceil_div(packed[packed.size() - 2], 4);
    packed.push_back(4);
  }
  return packed;
}

kernels::Matrices check_pack(const Tensor& x) {
  check_tensor("pack", "x", x, ScalarType::Char);
  const std::vector<int64_t> sizes = sizes_of(x);
  if (sizes.size() < 2) fail("pack", "x", "expected shape [..., M, K], got ", sizes);
  return matrices_of(sizes);
}

kernels::Matrices check_unpack(const Tensor& packed, kernels::Layout layout,
                               const std::vector<int64_t>& sizes) {
  check_tensor("unpack", "packed", packed, ScalarType::Int);
  if (sizes.size() < 2) fail("unpack", "sizes", "expected [..., M, K], got ", sizes);
  for (const int64_t size : sizes) {
    if (size < 0) fail("unpack", "sizes", "expected sizes >= 0, got ", sizes);
  }
  const std::vector<int64_t> expected = packed_sizes(sizes, layout);
  if (sizes_of(packed) != expected) {
    fail("unpack", "packed", "expected shape ", expected, " for sizes ", sizes, ", got ", sizes_of(packed));
  }
  return matrices_of(sizes);
}

}  // namespace q8ta::ops
