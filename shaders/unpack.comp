// int32 words of a packed order to row-major int8 matrices; four bytes (one word) an invocation.
#version 450
#extension GL_GOOGLE_include_directive : require

layout(local_size_x = 64) in;
layout(constant_id = 0) const uint ORDER = 0;

#include "include/workgroup.glsl"
#include "include/pack_arguments.glsl"

layout(set = 0, binding = 0) readonly buffer Packed { uint packed[]; };
layout(set = 0, binding = 1) writeonly buffer Destination { uint destination[]; };

uint packed_word(uint flat_byte) {
  uint K4 = (columns + 3) / 4;
  uint row = flat_byte / columns, k4 = flat_byte % columns / 4;
  if (ORDER == ORDER_ROWS) return packed[row * words_per_row + k4];
  uint row_blocks = (rows + 3) / 4;
  uint matrix = row / rows, row_in_matrix = row % rows;
  return packed[((matrix * row_blocks + row_in_matrix / 4) * K4 + k4) * 4 + row_in_matrix % 4];
}

void main() {
  uint word = workgroup_index() * gl_WorkGroupSize.x + gl_LocalInvocationID.x;
  if (word >= word_count) return;
  if (columns % 4 == 0) {  // the four bytes lie in one packed word
    destination[word] = packed_word(4 * word);
    return;
  }
  uint result = 0;
  for (uint i = 0; i < 4; ++i) {
    uint flat_byte = 4 * word + i;
    if (flat_byte >= byte_count) break;
    uint byte = packed_word(flat_byte) >> (flat_byte % columns % 4 * 8) & 0xff;
    result |= byte << (8 * i);
  }
  destination[word] = result;
}
