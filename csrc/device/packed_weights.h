#pragma once

#include <ATen/core/Tensor.h>

#include "kernels/pack.h"

namespace q8ta::device {

/// int8 weights [N, K] on vk in the order that a kernel reads: the tensor itself where it lies so, else a
/// packed copy, which is kept for the next call until the weights are edited in place (as torch counts
/// edits), until their storage dies, or until the package's weight cache is cleared.
at::Tensor packed_weights(const at::Tensor& weights, kernels::PackOrder order);

/// Frees the packed copies of weights that are gone. Otherwise that happens when the next weights are packed.
void drop_dead_packed_weights();

}  // namespace q8ta::device
