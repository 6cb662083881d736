#pragma once

#include "ops/linear_checks.h"
#include "ops/tensor.h"

namespace q8ta::ops {

void check_on_cpu(const char* op, const char* argument, const Tensor& tensor);

/// Throws unless all tensors are on the CPU.
void check_on_cpu(const LinearArguments<Tensor>& arguments);

void check_requantize(const Tensor& x);

/// Throws unless the N scales are finite and > 0.
void check_weight_scales(const char* op, const float* weight_scales, int64_t N);

}  // namespace q8ta::ops
