#pragma once

#include "ops/tensor.h"

namespace q8ta::ops {

/// int32 accumulators of an int8 product, and the name of what computed them (for profiles).
struct IntProduct {
  Tensor accumulators;
  const char* kernel;
};

/// x [M, K] contiguous, weights [N, K] in any strides -> exact int32 [M, N]. By torch._int_mm where that is
/// exact on this CPU (tried once), else by float64 products, which are exact and several times slower.
IntProduct int_matmul(const Tensor& x, const Tensor& weights);

}  // namespace q8ta::ops
