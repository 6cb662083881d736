// Checks of the linear operators' arguments, for the tensors of libtorch's stable ABI (CPU) and of its
// classic one (the vk device). That the tensors are on one device is checked before, by each in its own way.
#pragma once

#include <torch/headeronly/core/ScalarType.h>

#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/layout.h"
#include "ops/messages.h"
#include "ops/quantization_checks.h"

namespace q8ta::ops {

using torch::headeronly::ScalarType;

/// The arguments of linear, linear_gemv and linear_dequant as the schema has them.
template <typename Tensor>
struct LinearArguments {
  const char* op;
  const Tensor& x;
  double input_scale;
  int64_t input_zero_point;
  const Tensor& weights;
  const Tensor& weight_sums;
  const Tensor& weight_scales;
  double output_scale;  ///< 1 where the result is not quantized
  int64_t output_zero_point;
  const std::optional<Tensor>& bias;
  std::string_view activation;
  bool float_output = false;
  bool one_row = false;  ///< more is an error
};

/// What checked arguments amount to. problem.M is not set: M may be larger than it holds.
struct CheckedLinear {
  kernels::LinearProblem problem;
  int64_t M = 0;
};

template <typename Tensor>
std::vector<int64_t> sizes_of(const Tensor& tensor) {
  const auto sizes = tensor.sizes();
  return {sizes.begin(), sizes.end()};
}

template <typename Tensor>
void check_type(const char* op, const char* argument, const Tensor& tensor, ScalarType type) {
  if (tensor.scalar_type() != type) {
    fail(op, argument, "expected ", std::string(torch::headeronly::toString(type)), ", got ",
         std::string(torch::headeronly::toString(tensor.scalar_type())));
  }
}

template <typename Tensor>
void check_per_channel(const char* op, const char* argument, const Tensor& tensor, ScalarType type,
                       int64_t N) {
  check_type(op, argument, tensor, type);
  const int64_t padded = kernels::ceil_div(N, 4) * 4;
  if (tensor.dim() != 1 || (tensor.numel() != N && tensor.numel() != padded)) {
    fail(op, argument, "expected shape [", N, "] (or [", padded, "], padded to a multiple of 4), got ",
         sizes_of(tensor));
  }
}

/// Of arguments that were checked.
template <typename Tensor>
std::vector<int64_t> output_sizes_of(const LinearArguments<Tensor>& arguments) {
  std::vector<int64_t> sizes = sizes_of(arguments.x);
  sizes.back() = arguments.weights.size(0);
  return sizes;
}

/// Throws std::runtime_error naming the argument, what was expected and what came. Values inside tensors are
/// not looked at.
template <typename Tensor>
CheckedLinear check_linear(const LinearArguments<Tensor>& arguments) {
  const char* op = arguments.op;
  CheckedLinear checked;
  kernels::LinearProblem& problem = checked.problem;
  problem.op = op;
  problem.float_output = arguments.float_output;

  check_type(op, "x", arguments.x, ScalarType::Char);
  check_type(op, "weights", arguments.weights, ScalarType::Char);
  if (arguments.x.dim() < 1) fail(op, "x", "expected shape [..., K], got a scalar");
  if (arguments.weights.dim() != 2) {
    fail(op, "weights", "expected shape [N, K], got ", sizes_of(arguments.weights));
  }
  const auto weight_sizes = arguments.weights.sizes();
  const int64_t N = weight_sizes[0];
  const int64_t K = weight_sizes[1];
  if (N < 1 || K < 1) {
    fail(op, "weights", "expected at least one row and one column, got ", sizes_of(arguments.weights));
  }
  if (N > std::numeric_limits<int32_t>::max()) fail(op, "weights", "expected N below 2^31, got ", N);
  if (K > kernels::kMaxK) {
    fail(op, "weights", "expected K of at most ", kernels::kMaxK,
         " (beyond it an int32 accumulator can overflow), got ", K);
  }
  if (arguments.x.sizes().back() != K) {
    fail(op, "x", "expected last size ", K, " (the K of weights), got ", sizes_of(arguments.x));
  }
  checked.M = arguments.x.numel() / K;
  if (arguments.one_row && checked.M != 1) {
    fail(op, "x", "expected exactly one row (the product of the leading sizes), got ", checked.M,
         "; q8ta::linear takes any number");
  }

  check_per_channel(op, "weight_sums", arguments.weight_sums, ScalarType::Int, N);
  check_per_channel(op, "weight_scales", arguments.weight_scales, ScalarType::Float, N);
  if (arguments.bias) check_per_channel(op, "bias", *arguments.bias, ScalarType::Float, N);

  problem.K = static_cast<uint32_t>(K);
  problem.N = static_cast<uint32_t>(N);
  problem.quantization = check_quantization(op, arguments.input_scale, arguments.input_zero_point,
                                            arguments.output_scale, arguments.output_zero_point);
  problem.has_bias = arguments.bias.has_value();
  problem.relu = arguments.activation == "relu";
  if (!problem.relu && arguments.activation != "none") {
    fail(op, "activation", "expected 'none' or 'relu', got '", arguments.activation, "'");
  }
  return checked;
}

}  // namespace q8ta::ops
