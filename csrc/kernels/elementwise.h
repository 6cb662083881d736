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
  maximum = 4,     ///< of two tensors of 8 bits
  minimum = 5,     ///< of two tensors of 8 bits
};

/// Arguments of shaders/quantization.comp; each op uses what it needs.
struct ByteMap {
  ByteOp op;
  Quantization quantization;
  int32_t low = -128, high = 127;  ///< of the results
  bool is_signed = true;           ///< int8, else uint8
};

/// Records x -> y, or (x, other) -> y, for `count` values (at most kElementsInDispatch). Ranges cover whole
/// words; `other` may be any where the op has one operand.
void record_byte_map(vulkan::Recorder& recorder, const ByteMap& map, const vulkan::BufferRange& x,
                     const vulkan::BufferRange& other, const vulkan::BufferRange& y, uint32_t count,
                     const char* op);

enum class FloatOp : uint32_t {
  clamp = 0,
  add = 1,
  subtract = 2,
  multiply = 3,
  divide = 4,  ///< rounded as IEEE 754 has it
  maximum = 5,
  minimum = 6,
  negate = 7,  ///< of a
};

/// Which operand of an operation is no tensor but a number.
enum class NumberOperand : uint32_t { none = 0, a = 1, b = 2 };

/// What shaders/float_map.comp reads as push constants. Strides and offsets count elements; the last
/// dimension is the innermost. Without dimensions all operands lie alike, without gaps.
struct FloatMap {
  static constexpr size_t kMaxDimensions = 6;

  uint32_t count = 0, dimensions = 0, first_y = 0, first_a = 0, first_b = 0;
  std::array<uint32_t, kMaxDimensions> sizes{}, y_strides{}, a_strides{}, b_strides{};
  float low = 0.0F;   ///< of a clamp, or the operand that is a number
  float high = 0.0F;  ///< of a clamp
};

/// Records y = op(a, b) for float32; a number's range, and b of a clamp, may be any. `name` is the
/// operator's.
void record_float_map(vulkan::Recorder& recorder, FloatOp op, NumberOperand number, const FloatMap& map,
                      const vulkan::BufferRange& a, const vulkan::BufferRange& b,
                      const vulkan::BufferRange& y, const char* name);

/// What shaders/strided_copy.comp reads as push constants. Strides and offsets count elements; the last
/// dimension is the innermost.
struct StridedCopy {
  static constexpr size_t kMaxDimensions = 6;

  uint32_t count = 0, dimensions = 0, first_source = 0, first_destination = 0;
  std::array<uint32_t, kMaxDimensions> sizes{}, source_strides{}, destination_strides{};
};

/// Records the copy of elements of 1, 2, 4, 8 or 16 bytes. `dense`: the destination is contiguous, and what
/// is written with its last word belongs to no one else.
void record_strided_copy(vulkan::Recorder& recorder, const StridedCopy& copy, uint32_t element_bytes,
                         bool dense, const vulkan::BufferRange& from, const vulkan::BufferRange& to,
                         const char* op);

}  // namespace q8ta::kernels
