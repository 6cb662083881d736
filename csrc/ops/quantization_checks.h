#pragma once

#include <cstdint>

#include "kernels/linear_types.h"

namespace q8ta::ops {

/// Both ends of an operator, int8 in and int8 out. Throws std::runtime_error naming the argument.
kernels::Quantization check_quantization(const char* op, double input_scale, int64_t input_zero_point,
                                         double output_scale, int64_t output_zero_point);

}  // namespace q8ta::ops
