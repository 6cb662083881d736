// The largest of many elements, float32 or int8, of any strides. The reduced elements of an output may be
// dealt out to several results, whose maxima are then taken in another dispatch.
#version 450
#extension GL_GOOGLE_include_directive : require

layout(local_size_x = 64) in;
layout(constant_id = 0) const bool FLOATS = true;  // else int8
layout(constant_id = 1) const
    bool TOGETHER = true;  // a workgroup makes a word of results, else an invocation

#include "include/workgroup.glsl"

#include "include/maximum.glsl"

layout(set = 0, binding = 1) writeonly buffer Y { int y[]; };

shared int largest_of[gl_WorkGroupSize.x];

int bits_of(int ordered_float) { return ordered_float < 0 ? ordered_float ^ GREATEST : ordered_float; }

int load(uint index) {
  int value = element(place_of(index));
  return FLOATS ? ordered(value) : value;
}

// What one of `lanes` finds for a result.
int largest(uint result, uint lane, uint lanes) {
  uint part_size = (reduced + parts - 1) / parts;
  uint begin = result % parts * part_size;
  uint end = min(begin + part_size, reduced);
  int found = LEAST;
  for (uint i = begin + lane; i < end; i += lanes) found = max(found, load(result / parts * reduced + i));
  return found;
}

int largest_of_workgroup(uint result) {
  uint lane = gl_LocalInvocationID.x;
  largest_of[lane] = largest(result, lane, gl_WorkGroupSize.x);
  for (uint others = gl_WorkGroupSize.x / 2; others > 0; others /= 2) {
    barrier();
    if (lane < others) largest_of[lane] = max(largest_of[lane], largest_of[lane + others]);
  }
  barrier();
  int found = largest_of[0];
  barrier();
  return found;
}

void main() {
  uint word = workgroup_index();
  if (!TOGETHER) word = word * gl_WorkGroupSize.x + gl_LocalInvocationID.x;
  uint first = word * RESULTS_IN_WORD;
  if (first >= count) return;
  int packed = 0;
  for (uint i = 0; i < min(RESULTS_IN_WORD, count - first); ++i) {
    int found = TOGETHER ? largest_of_workgroup(first + i) : largest(first + i, 0, 1);
    packed |= FLOATS ? bits_of(found) : (found & 0xff) << (8 * i);
  }
  if (!TOGETHER || gl_LocalInvocationID.x == 0) y[word] = packed;
}
