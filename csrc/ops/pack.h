#pragma once

#include <vector>

#include "ops/tensor.h"

namespace q8ta::ops {

Tensor pack(const Tensor& x, int64_t layout);

Tensor unpack(const Tensor& packed, int64_t layout, const std::vector<int64_t>& sizes);

}  // namespace q8ta::ops
