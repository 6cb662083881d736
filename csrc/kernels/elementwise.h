#pragma once

#include <array>
#include <cstdint>

#include "kernels/linear_types.h"
#include "vulkan/recorder.h"

namespace q8ta::kernels {

/// Most elements of one dispatch of the element-by-element kernels: their bindings stay within every device's
/// limit (128 MiB). A multiple of 256, so that the next part begins where a binding may.
inline constexpr int64_t kElementsInDispatch = int64_t{1} << 24;

enum class ByteOp : uint32_t {
  quantize = 0,    ///< float32 to 8 bits
  dequantize = 1,  ///< 8 bits to float32
  requantize = 2,  ///< 8 bits to 8 bits
  clamp = 3,       ///< 8 bits to 8 bits
};

/// Arguments of shaders/quantization.comp; each op uses what it needs.
struct ByteMap {
  ByteOp op;
  Quantization quantization;
  int32_t low = -128, high = 127;  ///< of the results
  bool is_signed = true;           ///< int8, else uint8
};

/// Records x -> y for `count` values (at most kElementsInDispatch). Ranges cover whole words.
void record_byte_map(vulkan::Recorder& recorder, const ByteMap& map, const vulkan::BufferRange& x,
                     const vulkan::BufferRange& y, uint32_t count, const char* op);

enum class FloatOp : uint32_t { clamp = 0, add = 1, multiply = 2 };

/// Records y = clamp(a, low, high), a + b or a * b for `count` float32 values; b repeats every `period`
/// values.
void record_float_map(vulkan::Recorder& recorder, FloatOp op, const vulkan::BufferRange& a,
                      const vulkan::BufferRange& b, const vulkan::BufferRange& y, uint32_t count,
                      uint32_t period, float low, float high, const char* name);

/// What shaders/strided_copy.comp reads as push constants. Strides and offsets count elements; the last
/// dimension is the innermost.
struct StridedCopy {
  static constexpr size_t kMaxDimensions = 6;

  uint32_t count = 0, dimensions = 0, first_source = 0, first_destination = 0;
  std::array<uint32_t, kMaxDimensions> sizes{}, source_strides{}, destination_strides{};
};

/// Records the copy of elements of 1, 2, 4 or 8 bytes. `dense`: the destination is contiguous, and what is
/// written with its last word belongs to no one else.
void record_strided_copy(vulkan::Recorder& recorder, const StridedCopy& copy, uint32_t element_bytes,
                         bool dense, const vulkan::BufferRange& from, const vulkan::BufferRange& to,
                         const char* op);

}  // namespace q8ta::kernels
