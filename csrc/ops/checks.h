#pragma once

#include <optional>
#include <string>
#include <vector>

#include "kernels/layout.h"
#include "kernels/linear_types.h"
#include "ops/tensor.h"

namespace q8ta::ops {

/// The arguments of linear, linear_gemv and linear_dequant as the schema has them.
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
  const std::string& activation;
};

/// What checked arguments amount to. problem.M is not set: M may be larger than it holds.
struct CheckedLinear {
  kernels::LinearProblem problem;
  int64_t M = 0;
  std::vector<int64_t> output_sizes;
};

/// Both ends of an operator, int8 in and int8 out.
kernels::Quantization check_quantization(const char* op, double input_scale, int64_t input_zero_point,
                                         double output_scale, int64_t output_zero_point);

void check_requantize(const Tensor& x);

/// Throws std::runtime_error naming the argument, what was expected and what came. Values inside tensors are
/// not looked at (check_weight_scales does that where they are read).
CheckedLinear check_linear(const LinearArguments& arguments);

/// Throws unless the N scales are finite and > 0.
void check_weight_scales(const char* op, const float* weight_scales, int64_t N);

kernels::Layout check_layout(const char* op, int64_t layout);

/// x int8 [..., rows, columns].
kernels::Matrices check_pack(const Tensor& x);

/// `sizes` is [..., rows, columns]; packed has the layout's shape for them.
kernels::Matrices check_unpack(const Tensor& packed, kernels::Layout layout,
                               const std::vector<int64_t>& sizes);

/// Sizes of the packed tensor: [..., M, K4] (4W) or [..., M4, K4, 4] (4H4W).
std::vector<int64_t> packed_sizes(const std::vector<int64_t>& sizes, kernels::Layout layout);

}  // namespace q8ta::ops
