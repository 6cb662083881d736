// An opponent: the GEMV of ExecuTorch's pull request 17566, written from its description. A workgroup of 64
// threads computes 8 outputs. Its threads split K: each takes every 64th word of x and the two 4x4 blocks of
// weights that meet it. The sums are reduced by a tree in shared memory, and one thread finishes the outputs.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require

layout(local_size_x = 64) in;

#include "include/workgroup.glsl"
#include "include/int8_dot.glsl"
#include "benchmark/pull_request.glsl"

const uint THREADS = 64;

layout(set = 0, binding = 0) readonly buffer X {
  int x[];  // 4W
};
layout(set = 0, binding = 1) readonly buffer Weights {
  ivec4 weights[];  // [k4 * N_blocks + n4]: component = column in the block, bytes = 4 consecutive k
};
layout(set = 0, binding = 5) writeonly buffer Y {
  int y[];  // 4W
};

shared ivec4 sums[2 * THREADS];

void main() {
  uint thread = gl_LocalInvocationID.x;
  uint first_block = 2 * workgroup_index();  // of the outputs
  if (4 * first_block >= N) return;          // the whole workgroup
  uint N_blocks = 2 * ((N + 7) / 8);

  ivec4 partial[2] = ivec4[2](ivec4(0), ivec4(0));
  for (uint k4 = thread; k4 < K_words; k4 += THREADS) {
    int x_word = x[k4];
    [[unroll]] for (uint block = 0; block < 2; ++block) {
      ivec4 w = weights[k4 * N_blocks + first_block + block];
      [[unroll]] for (uint column = 0; column < 4; ++column)
        partial[block][column] += dot4(x_word, w[column]);
    }
  }
  [[unroll]] for (uint block = 0; block < 2; ++block)
    sums[block * THREADS + thread] = partial[block];
  for (uint width = THREADS / 2; width > 0; width /= 2) {
    barrier();
    if (thread < width) {
      [[unroll]] for (uint block = 0; block < 2; ++block)
        sums[block * THREADS + thread] += sums[block * THREADS + thread + width];
    }
  }
  if (thread != 0) return;

  [[unroll]] for (uint block = 0; block < 2; ++block) {
    uint n4 = first_block + block;
    if (4 * n4 < N) y[n4] = finish(sums[block * THREADS], n4);
  }
}
