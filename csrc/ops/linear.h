#pragma once

#include <optional>

#include "ops/tensor.h"

namespace q8ta::ops {

Tensor linear(const Tensor& x, double input_scale, int64_t input_zero_point, const Tensor& weights,
              const Tensor& weight_sums, const Tensor& weight_scales, double output_scale,
              int64_t output_zero_point, const std::optional<Tensor>& bias, StringHandle activation);

Tensor linear_gemv(const Tensor& x, double input_scale, int64_t input_zero_point, const Tensor& weights,
                   const Tensor& weight_sums, const Tensor& weight_scales, double output_scale,
                   int64_t output_zero_point, const std::optional<Tensor>& bias, StringHandle activation);

Tensor linear_dequant(const Tensor& x, double input_scale, int64_t input_zero_point, const Tensor& weights,
                      const Tensor& weight_sums, const Tensor& weight_scales,
                      const std::optional<Tensor>& bias, StringHandle activation);

}  // namespace q8ta::ops
