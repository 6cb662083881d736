// Where the largest of many elements is, float32 or int8, of any strides: the first one, where 0 and -0 are
// equal and the first NaN is the largest, as torch's CPU kernels have it.
#version 450
#extension GL_GOOGLE_include_directive : require

layout(local_size_x = 64) in;
layout(constant_id = 0) const bool FLOATS = true;  // else int8
// A workgroup makes a word of values, else an invocation.
layout(constant_id = 1) const bool TOGETHER = true;
layout(constant_id = 2) const bool WITH_VALUES = true;  // else indices alone

#include "include/workgroup.glsl"
#include "include/maximum.glsl"

layout(set = 0, binding = 1) writeonly buffer Values { int values[]; };
layout(set = 0, binding = 2) writeonly buffer Indices { uvec2 indices[]; };  // int64, low half first

struct Found {
  int key;
  uint index;
};

shared Found found_of[gl_WorkGroupSize.x];

int key_of(uint index) {
  int value = element(place_of(index));
  if (!FLOATS) return value;
  return value == LEAST ? 0 : ordered(value);  // -0
}

Found better(Found a, Found b) {
  if (a.key != b.key) return a.key > b.key ? a : b;
  return a.index < b.index ? a : b;
}

// What one of `lanes` finds for a result.
Found find(uint result, uint lane, uint lanes) {
  Found found = Found(LEAST, 0xffffffffu);
  for (uint i = lane; i < reduced; i += lanes) {
    int key = key_of(result * reduced + i);
    if (key > found.key) found = Found(key, i);
  }
  return found;
}

Found find_together(uint result) {
  uint lane = gl_LocalInvocationID.x;
  found_of[lane] = find(result, lane, gl_WorkGroupSize.x);
  for (uint others = gl_WorkGroupSize.x / 2; others > 0; others /= 2) {
    barrier();
    if (lane < others) found_of[lane] = better(found_of[lane], found_of[lane + others]);
  }
  barrier();
  Found found = found_of[0];
  barrier();
  return found;
}

void main() {
  uint word = workgroup_index();
  if (!TOGETHER) word = word * gl_WorkGroupSize.x + gl_LocalInvocationID.x;
  uint first = word * RESULTS_IN_WORD;
  if (first >= count) return;
  bool writes = !TOGETHER || gl_LocalInvocationID.x == 0;
  int packed = 0;
  for (uint i = 0; i < min(RESULTS_IN_WORD, count - first); ++i) {
    Found found = TOGETHER ? find_together(first + i) : find(first + i, 0, 1);
    if (writes) indices[first + i] = uvec2(found.index, 0);
    int value = element(place_of((first + i) * reduced + found.index));
    packed |= FLOATS ? value : (value & 0xff) << (8 * i);
  }
  if (WITH_VALUES && writes) values[word] = packed;
}
