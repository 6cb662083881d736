#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/MaybeOwned.h>

#include "kernels/pack.h"
#include "vulkan/capture.h"

namespace q8ta::device {

/// int8 weights [N, K] on vk in the order that a kernel reads: the tensor itself where it lies so, else a
/// packed copy, which is kept for the next call until the weights are edited in place (as torch counts
/// edits), until their storage dies, or until the package's weight cache is cleared. While a graph is
/// captured the packing is part of the graph: each replay reads the weights as they are then.
c10::MaybeOwned<at::Tensor> packed_weights(const at::Tensor& weights, kernels::PackOrder order);

/// A graph has written these buffers, which torch does not count as edits: weights in them are packed again.
void repack_written_weights(const vulkan::BufferIds& written);

/// Frees the packed copies of weights that are gone, and tells whether there were any. Otherwise that happens
/// when the next weights are packed.
bool drop_dead_packed_weights();

}  // namespace q8ta::device
