// A few rows of x times W, which is read once: the dot products of a GEMV with x held in registers, so that
// only W is on its way. SPLIT subgroups share the K of the same columns of y, CHUNKS chunks of 16 bytes a
// lane; they compute 32 sums at a time, of X_ROWS rows and 32 / X_ROWS columns, BATCHES times, and add them
// up across lanes by halves: each step sends half of the sums that are left to the lane that keeps them.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_shuffle : require

layout(local_size_x_id = 0) in;
layout(constant_id = 0) const uint THREADS = 256;
layout(constant_id = 1) const bool FLOAT_OUTPUT = false;
layout(constant_id = 2) const uint LANES = 32;  // of a subgroup
layout(constant_id = 3) const uint SPLIT = 8;
layout(constant_id = 4) const uint CHUNKS = 1;
layout(constant_id = 5) const uint X_ROWS = 8;  // 4, 8 or 16, M at least
layout(constant_id = 6) const uint BATCHES = 4;

#include "include/workgroup.glsl"
#include "include/int8_dot.glsl"
#include "include/linear.glsl"
#include "include/linear_output.glsl"

layout(set = 0, binding = 0) readonly buffer X {
  ivec4 x[];  // [m * K_blocks + k16]
};
layout(set = 0, binding = 1) readonly buffer Weights {
  ivec4 weights[];  // [n * K_blocks + k16]
};

const uint SUMS = 32;
const uint COLUMNS = SUMS / X_ROWS;
const uint SETS = THREADS / LANES / SPLIT;
const uint SET_COLUMNS = BATCHES * COLUMNS;
const uint OUTPUTS = SETS * SET_COLUMNS;  // columns of a workgroup, a multiple of 4

shared int sums[SPLIT * SETS * BATCHES * SUMS];  // [part][set][batch][column][row]

ivec4 x_chunks[X_ROWS * CHUNKS];
ivec4 w_chunks[COLUMNS * CHUNKS];
int partial[SUMS];

void main() {
  uint n_first = workgroup_index() * OUTPUTS;
  if (n_first >= N) return;  // the whole workgroup: the folded grid may be larger than the work
  uint set = gl_SubgroupID / SPLIT, part = gl_SubgroupID % SPLIT, lane = gl_SubgroupInvocationID;

  uint k[CHUNKS];
  [[unroll]] for (uint c = 0; c < CHUNKS; ++c) {
    uint k16 = (c * SPLIT + part) * LANES + lane;
    bool inside = k16 < K_blocks;
    k[c] = min(k16, K_blocks - 1);
    [[unroll]] for (uint m = 0; m < X_ROWS; ++m)
      x_chunks[m * CHUNKS + c] = inside ? x[min(m, M - 1) * K_blocks + k[c]] : ivec4(0);
  }

  for (uint batch = 0; batch < BATCHES; ++batch) {
    uint n_batch = n_first + set * SET_COLUMNS + batch * COLUMNS;
    [[unroll]] for (uint j = 0; j < COLUMNS; ++j) {
      uint row_start = min(n_batch + j, N - 1) * K_blocks;
      [[unroll]] for (uint c = 0; c < CHUNKS; ++c)
        w_chunks[j * CHUNKS + c] = weights[row_start + k[c]];
    }
    [[unroll]] for (uint i = 0; i < SUMS; ++i) {
      partial[i] = 0;
      [[unroll]] for (uint c = 0; c < CHUNKS; ++c)
        partial[i] += dot16(w_chunks[i / X_ROWS * CHUNKS + c], x_chunks[i % X_ROWS * CHUNKS + c]);
    }
    uint first = ((part * SETS + set) * BATCHES + batch) * SUMS;
    [[unroll]] for (uint mask = LANES / 2, left = SUMS; mask > 0; mask /= 2) {
      if (left > 1) {
        left /= 2;
        bool upper = (lane & mask) != 0;
        [[unroll]] for (uint i = 0; i < left; ++i) {
          int sent = upper ? partial[i] : partial[i + left];
          partial[i] = (upper ? partial[i + left] : partial[i]) + subgroupShuffleXor(sent, mask);
        }
      } else {
        partial[0] += subgroupShuffleXor(partial[0], mask);
      }
    }
    if (LANES <= SUMS) {
      [[unroll]] for (uint i = 0; i < SUMS / LANES; ++i)
        sums[first + lane * (SUMS / LANES) + i] = partial[i];
    } else if (lane % (LANES / SUMS) == 0) {
      sums[first + lane / (LANES / SUMS)] = partial[0];
    }
  }
  barrier();

  for (uint item = gl_LocalInvocationID.x; item < M * OUTPUTS / 4; item += THREADS) {
    uint m = item / (OUTPUTS / 4), column = item % (OUTPUTS / 4) * 4, n = n_first + column;
    if (n >= N) continue;
    ivec4 total = ivec4(0);
    [[unroll]] for (uint i = 0; i < 4; ++i) {
      [[unroll]] for (uint p = 0; p < SPLIT; ++p)
        total[i] += sums[p * SETS * BATCHES * SUMS + (column + i) * X_ROWS + m];
    }
    store4(m, n, total, read_channels(n));
  }
}
