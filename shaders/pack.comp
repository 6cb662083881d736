// Row-major int8 matrices to int32 words of a packed order; one word an invocation, padding is 0.
#version 450
#extension GL_GOOGLE_include_directive : require

layout(local_size_x = 64) in;
layout(constant_id = 0) const uint ORDER = 0;

#include "include/workgroup.glsl"
#include "include/pack_arguments.glsl"

layout(set = 0, binding = 0) readonly buffer Source { uint source[]; };
layout(set = 0, binding = 1) writeonly buffer Packed { uint packed[]; };

// Bytes 4 * k4 .. 4 * k4 + 3 of a row (counted over all matrices), wherever they lie in the words of the
// buffer.
uint load_quad(uint row, uint k4) {
  uint valid = min(4u, columns - 4 * k4);
  uint first = first_byte + row * columns + 4 * k4;
  uint shift = first % 4 * 8;
  uint quad = source[first / 4] >> shift;
  if (first % 4 + valid > 4) quad |= source[first / 4 + 1] << (32 - shift);
  return valid == 4 ? quad : quad & ((1u << (8 * valid)) - 1);
}

void main() {
  uint word = workgroup_index() * gl_WorkGroupSize.x + gl_LocalInvocationID.x;
  if (word >= word_count) return;
  uint K4 = (columns + 3) / 4;
  uint matrix = 0, row, k4;
  if (ORDER == ORDER_ROWS) {
    row = word / words_per_row;
    k4 = word % words_per_row;
    matrix = row / rows;
    row %= rows;
  } else if (ORDER == ORDER_TILES) {
    uint row_blocks = (rows + 63) / 64, blocks_per_row = words_per_row / 16;
    uint block = word / 1024, chunk = word / 4 % 256;
    uint row_block = block / blocks_per_row;
    k4 = block % blocks_per_row * 16 + chunk % 4 * 4 + word % 4;
    matrix = row_block / row_blocks;
    row = row_block % row_blocks * 64 + chunk / 8 + chunk / 4 % 2 * 32;
  } else {
    uint row_blocks = (rows + 3) / 4;
    uint row_block = word / 4 / K4;
    k4 = word / 4 % K4;
    matrix = row_block / row_blocks;
    row = row_block % row_blocks * 4 + word % 4;
  }
  packed[word] = row < rows && k4 < K4 ? load_quad(matrix * rows + row, k4) : 0;
}
