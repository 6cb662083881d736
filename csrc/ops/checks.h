#pragma once

#include <vector>

#include "kernels/layout.h"
#include "ops/linear_checks.h"
#include "ops/tensor.h"

namespace q8ta::ops {

/// Throws unless all tensors are on the CPU.
void check_on_cpu(const LinearArguments<Tensor>& arguments);

void check_requantize(const Tensor& x);

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
