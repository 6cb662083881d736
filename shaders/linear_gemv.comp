// A few rows of x times W, which is read once. Each workgroup computes OUTPUTS adjacent columns of all X_ROWS
// rows; its threads split K and reduce. SUBGROUP: subgroups work on ROWS columns each, SPLIT of them share
// the K of the same columns, and lanes reduce by subgroupAdd. Otherwise 64 threads split the K of all columns
// and reduce by a tree in shared memory.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#if SUBGROUP
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_arithmetic : require
#endif

layout(local_size_x_id = 0) in;
layout(constant_id = 0) const uint THREADS = 64;
layout(constant_id = 1) const bool FLOAT_OUTPUT = false;
layout(constant_id = 2) const uint ROWS =
    4;  // columns of y, which are rows of W, that a thread works on at once
layout(constant_id = 3) const uint SPLIT = 1;
layout(constant_id = 4) const uint UNROLL = 1;  // chunks along K that are loaded together
layout(constant_id = 5) const uint X_ROWS = 1;
layout(constant_id = 6) const uint LANES = 32;  // threads that reduce together: a subgroup

#include "include/workgroup.glsl"
#include "include/int8_dot.glsl"
#include "include/linear.glsl"
#include "include/linear_output.glsl"

layout(set = 0, binding = 0) readonly buffer X {
  ivec4 x[];  // [m * K_blocks + k16]; what lies behind K meets zero weights
};
layout(set = 0, binding = 1) readonly buffer Weights {
  ivec4 weights[];  // [n * K_blocks + k16], zero behind K
};

const uint OUTPUTS = THREADS / LANES / SPLIT * ROWS;  // a multiple of 4

shared int sums[SPLIT * X_ROWS * OUTPUTS];

int partial[X_ROWS * ROWS];  // [m * ROWS + row]

#if SUBGROUP
void reduce(uint part, uint first) {
  [[unroll]] for (uint i = 0; i < X_ROWS * ROWS; ++i) {
    int total = subgroupAdd(partial[i]);
    if (gl_SubgroupInvocationID == 0) sums[(part * X_ROWS + i / ROWS) * OUTPUTS + first + i % ROWS] = total;
  }
}
#else
shared int tree[X_ROWS * ROWS * THREADS];

void reduce(uint part, uint first) {
  uint thread = gl_LocalInvocationID.x;
  [[unroll]] for (uint i = 0; i < X_ROWS * ROWS; ++i)
    tree[i * THREADS + thread] = partial[i];
  for (uint half_width = THREADS / 2; half_width > 0; half_width /= 2) {
    barrier();
    if (thread < half_width) {
      [[unroll]] for (uint i = 0; i < X_ROWS * ROWS; ++i)
        tree[i * THREADS + thread] += tree[i * THREADS + thread + half_width];
    }
  }
  if (thread == 0) {
    [[unroll]] for (uint i = 0; i < X_ROWS * ROWS; ++i)
      sums[i] = tree[i * THREADS];
  }
}
#endif

void main() {
#if SUBGROUP
  uint group = gl_SubgroupID, lane = gl_SubgroupInvocationID;
#else
  uint group = 0, lane = gl_LocalInvocationID.x;
#endif
  uint n_first = workgroup_index() * OUTPUTS;
  if (n_first >= N) return;  // the whole workgroup: the folded grid may be larger than the work

  uint first = group / SPLIT * ROWS, part = group % SPLIT;
  [[unroll]] for (uint i = 0; i < X_ROWS * ROWS; ++i)
    partial[i] = 0;
  uint row_start[ROWS];
  [[unroll]] for (uint row = 0; row < ROWS; ++row)
    row_start[row] = min(n_first + first + row, N - 1) * K_blocks;

  const uint STRIDE = LANES * SPLIT;
  uint k = part * LANES + lane;
  for (; k + STRIDE * (UNROLL - 1) < K_blocks; k += STRIDE * UNROLL) {
    ivec4 w[UNROLL * ROWS];
    ivec4 x_chunks[UNROLL * X_ROWS];
    [[unroll]] for (uint u = 0; u < UNROLL; ++u) {
      [[unroll]] for (uint row = 0; row < ROWS; ++row)
        w[u * ROWS + row] = weights[row_start[row] + k + u * STRIDE];
      [[unroll]] for (uint m = 0; m < X_ROWS; ++m)
        x_chunks[u * X_ROWS + m] = x[m * K_blocks + k + u * STRIDE];
    }
    [[unroll]] for (uint u = 0; u < UNROLL; ++u) {
      [[unroll]] for (uint i = 0; i < X_ROWS * ROWS; ++i)
        partial[i] += dot16(w[u * ROWS + i % ROWS], x_chunks[u * X_ROWS + i / ROWS]);
    }
  }
  if (UNROLL > 1) {
    for (; k < K_blocks; k += STRIDE) {
      [[unroll]] for (uint i = 0; i < X_ROWS * ROWS; ++i)
        partial[i] += dot16(weights[row_start[i % ROWS] + k], x[i / ROWS * K_blocks + k]);
    }
  }
  reduce(part, first);
  barrier();

  for (uint item = gl_LocalInvocationID.x; item < X_ROWS * OUTPUTS / 4; item += THREADS) {
    uint m = item / (OUTPUTS / 4), word = item % (OUTPUTS / 4), n = n_first + 4 * word;
    if (n >= N) continue;
    ivec4 total = ivec4(0);
    [[unroll]] for (uint i = 0; i < 4; ++i) {
      [[unroll]] for (uint p = 0; p < SPLIT; ++p)
        total[i] += sums[(p * X_ROWS + m) * OUTPUTS + 4 * word + i];
    }
    store4(m, n, total, read_channels(n));
  }
}
