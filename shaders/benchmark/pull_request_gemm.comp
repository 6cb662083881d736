// An opponent: the GEMM beside the GEMV of ExecuTorch's pull request 17566, written from its description. An
// invocation computes 4 rows x 8 columns: it walks along K, and for each word of it loads one 4H4W block of x
// and two 4x4 blocks of weights from global memory. No shared memory. A workgroup is 8 x 8 invocations.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require

layout(local_size_x = 64) in;

#include "include/workgroup.glsl"
#include "include/int8_dot.glsl"
#include "benchmark/pull_request.glsl"

const uint SIDE = 8;  // invocations of a workgroup along M and along N

layout(set = 0, binding = 0) readonly buffer X {
  ivec4 x[];  // 4H4W: [m4 * K_words + k4]
};
layout(set = 0, binding = 1) readonly buffer Weights {
  ivec4 weights[];  // [k4 * N_blocks + n4]: component = column in the block, bytes = 4 consecutive k
};
layout(set = 0, binding = 5) writeonly buffer Y {
  ivec4 y[];  // 4H4W
};

void main() {
  uint M_blocks = (M + 3) / 4, N_words = (N + 3) / 4, N_pairs = (N + 7) / 8;
  uint workgroups_n = (N_pairs + SIDE - 1) / SIDE;
  uint pair = workgroup_index() % workgroups_n * SIDE + gl_LocalInvocationID.x % SIDE;
  uint m4 = workgroup_index() / workgroups_n * SIDE + gl_LocalInvocationID.x / SIDE;
  if (m4 >= M_blocks || pair >= N_pairs) return;

  ivec4 sums[8];  // [row of the block * 2 + block]
  [[unroll]] for (uint i = 0; i < 8; ++i)
    sums[i] = ivec4(0);
  for (uint k4 = 0; k4 < K_words; ++k4) {
    ivec4 x_block = x[m4 * K_words + k4];
    [[unroll]] for (uint block = 0; block < 2; ++block) {
      ivec4 w = weights[(k4 * N_pairs + pair) * 2 + block];
      [[unroll]] for (uint row = 0; row < 4; ++row) {
        [[unroll]] for (uint column = 0; column < 4; ++column)
          sums[row * 2 + block][column] += dot4(x_block[row], w[column]);
      }
    }
  }

  [[unroll]] for (uint block = 0; block < 2; ++block) {
    uint n4 = 2 * pair + block;
    if (n4 >= N_words) continue;
    ivec4 words = ivec4(0);
    [[unroll]] for (uint row = 0; row < 4; ++row) {
      if (4 * m4 + row < M) words[row] = finish(sums[row * 2 + block], n4);
    }
    y[m4 * N_words + n4] = words;
  }
}
