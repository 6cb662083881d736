#pragma once

#include <ATen/core/Tensor.h>

#include "kernels/elementwise.h"

namespace q8ta::device {

/// Queues the map of all of x's values to a new tensor of this type, with x's strides where they are dense.
at::Tensor map_bytes(const at::Tensor& x, at::ScalarType type, const kernels::ByteMap& map, const char* op);

/// Queues the map of x's and other's values, which broadcast to the sizes of `to`, a tensor of its own.
void map_bytes(const at::Tensor& x, const at::Tensor& other, const at::Tensor& to,
               const kernels::ByteMap& map, const char* op);

}  // namespace q8ta::device
