#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/MaybeOwned.h>

#include <optional>

#include "vulkan/capture.h"

namespace q8ta::device {

/// int8 weights [N, K] on vk in PackOrder::padded_rows, which every kernel reads: the tensor itself where it
/// lies so, else a packed copy, which is kept for the next call until the weights are edited in place (as
/// torch counts edits), until their storage dies, or until the package's weight cache is cleared. While a
/// graph is captured the packing is part of the graph: each replay reads the weights as they are then.
c10::MaybeOwned<at::Tensor> weights_in_rows(const at::Tensor& weights);

/// The weights in PackOrder::tiles, a copy that is kept likewise. Calls are only faster with it, so it comes
/// after everything else that wants memory: empty if there is none for it, or if memory has run out since the
/// caches were emptied; empty, too, where it could not be kept (for memory that is another storage's, and
/// while a graph is captured).
std::optional<at::Tensor> weights_in_tiles(const at::Tensor& weights);

/// A graph has written these buffers, which torch does not count as edits: weights in them are packed again.
void repack_written_weights(const vulkan::BufferIds& written);

/// Frees the packed copies of weights that are gone, and tells whether there were any. Otherwise that happens
/// when the next weights are packed.
bool drop_dead_packed_weights();

/// Frees the copies in tiles and tells whether there were any.
bool drop_weights_in_tiles();

/// The same where memory is wanted that is not asked of torch's allocator: gives it back to the driver, and
/// makes no such copies any more until the caches are emptied.
bool give_back_weights_in_tiles();

/// Whether new copies in tiles may be made: not when memory has run out because of them.
void allow_weights_in_tiles(bool allowed);

}  // namespace q8ta::device
