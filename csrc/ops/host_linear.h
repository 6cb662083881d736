#pragma once

#include "ops/linear_checks.h"
#include "ops/tensor.h"

namespace q8ta::ops {

/// linear of contiguous CPU x by the host kernel. At least one row.
Tensor run_on_host(const LinearArguments<Tensor>& arguments, const CheckedLinear& checked, const Tensor& x);

}  // namespace q8ta::ops
