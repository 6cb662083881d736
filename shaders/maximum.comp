// The largest of many elements, float32 or int8, of any strides. The reduced elements of an output may be
// dealt out to several results, whose maxima are then taken in another dispatch.
#version 450
#extension GL_GOOGLE_include_directive : require

layout(local_size_x = 64) in;
layout(constant_id = 0) const bool FLOATS = true;  // else int8
layout(constant_id = 1) const
    bool TOGETHER = true;  // a workgroup makes a word of results, else an invocation

#include "include/workgroup.glsl"

const uint MAX_DIMENSIONS = 6;

layout(push_constant) uniform Arguments {
  uint count;    // of results
  uint parts;    // results for one output
  uint reduced;  // elements for one output
  uint first_x;  // element of the binding
  uint dimensions;
  uint sizes[MAX_DIMENSIONS];  // those that are kept, then those that are reduced; the last one is the
                               // innermost
  uint x_strides[MAX_DIMENSIONS];
};
layout(set = 0, binding = 0) readonly buffer X { int x[]; };
layout(set = 0, binding = 1) writeonly buffer Y { int y[]; };

const uint RESULTS_IN_WORD = FLOATS ? 1 : 4;
const int LEAST = int(0x80000000);
const int GREATEST = 0x7fffffff;  // also the bits of a NaN
const int INFINITY = 0x7f800000;

shared int largest_of[gl_WorkGroupSize.x];

// An integer in whose order floats are: a NaN is the greatest, and no subnormal is taken for 0.
int ordered(int bits) {
  if ((bits & GREATEST) > INFINITY) return GREATEST;
  return bits < 0 ? bits ^ GREATEST : bits;
}

int bits_of(int ordered_float) { return ordered_float < 0 ? ordered_float ^ GREATEST : ordered_float; }

int load(uint index) {
  uint place = first_x;
  for (uint d = dimensions; d-- > 0;) {
    place += index % sizes[d] * x_strides[d];
    index /= sizes[d];
  }
  if (FLOATS) return ordered(x[place]);
  return bitfieldExtract(x[place / 4], int(place % 4 * 8), 8);
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
