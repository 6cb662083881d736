#pragma once

#include "kernels/layout.h"
#include "vulkan/recorder.h"

namespace q8ta::kernels {

/// Records shaders/pack.comp from row-major bytes to `packed`, padding included.
void record_pack(vulkan::Recorder& recorder, const vulkan::ByteRange& source, const Matrices& matrices,
                 PackOrder order, const vulkan::BufferRange& packed, const char* op);

/// Records shaders/unpack.comp from `packed` (rows_4w or blocks_4h4w) to row-major bytes, in whole words.
void record_unpack(vulkan::Recorder& recorder, const vulkan::BufferRange& packed, const Matrices& matrices,
                   PackOrder order, const vulkan::BufferRange& destination, const char* op);

}  // namespace q8ta::kernels
