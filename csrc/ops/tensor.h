#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <string>
#include <vector>

namespace q8ta::ops {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

/// Counts in-place edits. 0 for inference tensors, which have no counter.
int64_t version_of(const Tensor& tensor);

/// Bytes of the storage from the tensor's first element on.
int64_t bytes_from_first_element(const Tensor& tensor);

/// An uninitialized contiguous CPU tensor.
Tensor empty_cpu(const std::vector<int64_t>& sizes, ScalarType type);

/// The tensor itself if it is contiguous, else a contiguous copy.
Tensor made_contiguous(const Tensor& tensor);

/// The string that an operator is given, whose handle it has to delete. Where an argument's type is
/// std::string, torch (2.11 to 2.13) loses one for each call.
std::string take_string(StringHandle handle);

/// int32 [M, N] product of int8 matrices, by torch._int_mm.
Tensor int_mm(const Tensor& a, const Tensor& b);

}  // namespace q8ta::ops
