// One row of x times W: each workgroup computes OUTPUTS adjacent outputs, its threads split K and reduce.
// SUBGROUP: each subgroup reduces ROWS outputs of its own by subgroupAdd. Otherwise 64 threads reduce all of
// the workgroup's outputs by a tree in shared memory.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#if SUBGROUP
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_arithmetic : require
#endif

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint ROWS = 4;     // accumulators a thread: outputs that it works on
layout(constant_id = 2) const uint OUTPUTS = 4;  // outputs a workgroup, a multiple of 4
layout(constant_id = 3) const bool FLOAT_OUTPUT = false;

#include "include/workgroup.glsl"
#include "include/int8_dot.glsl"
#include "include/linear.glsl"

layout(set = 0, binding = 0) readonly buffer X {
  ivec4 x[];  // 4W; what lies behind K meets zero weights
};
layout(set = 0, binding = 1) readonly buffer Weights {
  ivec4 weights[];  // [n * K_blocks + k16], zero behind K
};
layout(set = 0, binding = 5) writeonly buffer Y {
  int y[];  // 4W words, or the bits of floats
};

shared int sums[OUTPUTS];

#if SUBGROUP
void reduce(uint first, int partial[ROWS]) {
  [[unroll]] for (uint r = 0; r < ROWS; ++r) {
    int total = subgroupAdd(partial[r]);
    if (gl_SubgroupInvocationID == 0) sums[first + r] = total;
  }
}
#else
const uint THREADS = 64;
shared int tree[ROWS * THREADS];

void reduce(uint first, int partial[ROWS]) {
  uint thread = gl_LocalInvocationID.x;
  [[unroll]] for (uint r = 0; r < ROWS; ++r)
    tree[r * THREADS + thread] = partial[r];
  for (uint half_width = THREADS / 2; half_width > 0; half_width /= 2) {
    barrier();
    if (thread < half_width) {
      [[unroll]] for (uint r = 0; r < ROWS; ++r) {
        tree[r * THREADS + thread] += tree[r * THREADS + thread + half_width];
      }
    }
  }
  if (thread == 0) {
    [[unroll]] for (uint r = 0; r < ROWS; ++r)
      sums[first + r] = tree[r * THREADS];
  }
}
#endif

void main() {
#if SUBGROUP
  uint group = gl_SubgroupID, lane = gl_SubgroupInvocationID, lanes = gl_SubgroupSize;
#else
  uint group = 0, lane = gl_LocalInvocationID.x, lanes = THREADS;
#endif
  uint workgroup_first = workgroup_index() * OUTPUTS;
  if (workgroup_first >= N) return;  // the whole workgroup: the folded grid may be larger than the work

  uint first = group * ROWS;
  int partial[ROWS];
  uint row_start[ROWS];
  [[unroll]] for (uint r = 0; r < ROWS; ++r) {
    partial[r] = 0;
    row_start[r] = min(workgroup_first + first + r, N - 1) * K_blocks;
  }
  for (uint k = lane; k < K_blocks; k += lanes) {
    ivec4 x_chunk = x[k];
    [[unroll]] for (uint r = 0; r < ROWS; ++r)
      partial[r] += dot16(weights[row_start[r] + k], x_chunk);
  }
  reduce(first, partial);
  barrier();

  uint thread = gl_LocalInvocationID.x;
  if (FLOAT_OUTPUT) {
    for (uint i = thread; i < OUTPUTS; i += gl_WorkGroupSize.x) {
      uint n = workgroup_first + i;
      if (n < N) y[n] = floatBitsToInt(dequantize(sums[i], n));
    }
  } else {
    for (uint word = thread; word < OUTPUTS / 4; word += gl_WorkGroupSize.x) {
      ivec4 bytes = ivec4(0);
      uint n_word = workgroup_first + 4 * word;
      [[unroll]] for (uint i = 0; i < 4; ++i) {
        if (n_word + i < N) bytes[i] = quantize(dequantize(sums[4 * word + i], n_word + i));
      }
      if (n_word < N) y[n_word / 4] = pack4(bytes);
    }
  }
}
