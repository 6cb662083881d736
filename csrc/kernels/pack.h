#pragma once

#include "kernels/layout.h"
#include "vulkan/recorder.h"

namespace q8ta::kernels {

/// Orders that shaders/pack.comp writes: the two public layouts and what the kernels read.
enum class PackOrder {
  rows_4w,      ///< PACKED_INT8_4W
  blocks_4h4w,  ///< PACKED_INT8_4H4W
  padded_rows,  ///< rows padded to 16 bytes: PACKED_INT8_4W of a matrix whose K is rounded up to 16
};

constexpr PackOrder pack_order(Layout layout) {
  return layout == Layout::packed_int8_4h4w ? PackOrder::blocks_4h4w : PackOrder::rows_4w;
}

/// int32 words of the matrices in that order.
int64_t packed_words(const Matrices& matrices, PackOrder order);

/// Records shaders/pack.comp from row-major bytes to `packed`, padding included.
void record_pack(vulkan::Recorder& recorder, const vulkan::ByteRange& source, const Matrices& matrices,
                 PackOrder order, const vulkan::BufferRange& packed, const char* op);

/// Records shaders/unpack.comp from `packed` (rows_4w or blocks_4h4w) to row-major bytes, in whole words.
void record_unpack(vulkan::Recorder& recorder, const vulkan::BufferRange& packed, const Matrices& matrices,
                   PackOrder order, const vulkan::BufferRange& destination, const char* op);

}  // namespace q8ta::kernels
