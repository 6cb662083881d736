#pragma once

#include "ops/tensor.h"

namespace q8ta::ops {

Tensor requantize(const Tensor& x, double input_scale, int64_t input_zero_point, double output_scale,
                  int64_t output_zero_point);

}  // namespace q8ta::ops
