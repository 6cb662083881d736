// Tiled GEMM over 4H4W. A workgroup of 64 threads computes a panel of 64 columns and 64 / THREADS_N rows of
// blocks; each thread holds BLOCKS_M x BLOCKS_N blocks of 4x4 outputs in registers. No shared memory: the
// threads of a row read neighbouring blocks of the weight panel (one coalesced load) and the same block of x
// (a broadcast).
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require

layout(local_size_x = 64) in;  // one dimension: Adreno 840 computed wrong blocks with 8x8 and 4x16
layout(constant_id = 0) const uint BLOCKS_M = 1;
layout(constant_id = 1) const uint BLOCKS_N = 1;
layout(constant_id = 2) const bool FLOAT_OUTPUT = false;

#include "include/workgroup.glsl"
#include "include/int8_dot.glsl"
#include "include/linear.glsl"

const uint PANEL_BLOCKS = 16;
const uint THREADS_N = PANEL_BLOCKS / BLOCKS_N;
const uint THREADS_M = 64 / THREADS_N;
const uint TILE_BLOCKS_M = THREADS_M * BLOCKS_M;

layout(set = 0, binding = 0) readonly buffer X {
  ivec4 x[];  // 4H4W: [m4 * K_blocks + k4]
};
layout(set = 0, binding = 1) readonly buffer Weights {
  ivec4 weights[];  // [(panel * K_blocks + k4) * 16 + n4 % 16], component = column, bytes = 4 consecutive k
};
layout(set = 0, binding = 3) writeonly buffer YBlocks {
  ivec4 y_blocks[];  // 4H4W
};
layout(set = 0, binding = 3) writeonly buffer YFloats {
  float y_floats[];  // [m * N + n]
};

void store_float(uint m, uint n, int accumulator) {
  if (m < M && n < N) y_floats[m * N + n] = dequantize(accumulator, channels[n]);
}

int quantize_or_padding(uint m, uint n, int accumulator) {
  return m < M && n < N ? quantize(dequantize(accumulator, channels[n])) : 0;
}

void main() {
  uint M_blocks = (M + 3) / 4, N_blocks = (N + 3) / 4;
  uint tiles_m = (M_blocks + TILE_BLOCKS_M - 1) / TILE_BLOCKS_M;
  // Neighbouring workgroups share a weight panel.
  uint tile_m = workgroup_index() % tiles_m, panel = workgroup_index() / tiles_m;
  uint thread_n = gl_LocalInvocationID.x % THREADS_N, thread_m = gl_LocalInvocationID.x / THREADS_N;
  if (panel * PANEL_BLOCKS >= N_blocks) return;

  uint m4[BLOCKS_M];
  uint x_row[BLOCKS_M];
  [[unroll]] for (uint i = 0; i < BLOCKS_M; ++i) {
    m4[i] = tile_m * TILE_BLOCKS_M + i * THREADS_M + thread_m;
    x_row[i] = min(m4[i], M_blocks - 1) * K_blocks;
  }

  // accumulators[block][row][column]
  ivec4 accumulators[BLOCKS_M * BLOCKS_N * 4];
  [[unroll]] for (uint i = 0; i < BLOCKS_M * BLOCKS_N * 4; ++i)
    accumulators[i] = ivec4(0);

  for (uint k4 = 0; k4 < K_blocks; ++k4) {
    ivec4 x_block[BLOCKS_M];
    [[unroll]] for (uint i = 0; i < BLOCKS_M; ++i)
      x_block[i] = x[x_row[i] + k4];
    [[unroll]] for (uint j = 0; j < BLOCKS_N; ++j) {
      ivec4 w_block = weights[(panel * K_blocks + k4) * PANEL_BLOCKS + j * THREADS_N + thread_n];
      [[unroll]] for (uint i = 0; i < BLOCKS_M; ++i) {
        [[unroll]] for (uint row = 0; row < 4; ++row) {
          accumulators[(i * BLOCKS_N + j) * 4 + row] +=
              ivec4(dot4(x_block[i][row], w_block.x), dot4(x_block[i][row], w_block.y),
                    dot4(x_block[i][row], w_block.z), dot4(x_block[i][row], w_block.w));
        }
      }
    }
  }

  [[unroll]] for (uint i = 0; i < BLOCKS_M; ++i) {
    [[unroll]] for (uint j = 0; j < BLOCKS_N; ++j) {
      uint n4 = panel * PANEL_BLOCKS + j * THREADS_N + thread_n;
      if (m4[i] >= M_blocks || n4 >= N_blocks) continue;
      ivec4 block;
      [[unroll]] for (uint row = 0; row < 4; ++row) {
        ivec4 sums = accumulators[(i * BLOCKS_N + j) * 4 + row];
        uint m = 4 * m4[i] + row, n = 4 * n4;
        if (FLOAT_OUTPUT) {
          [[unroll]] for (uint column = 0; column < 4; ++column)
            store_float(m, n + column, sums[column]);
        } else {
          ivec4 bytes;
          [[unroll]] for (uint column = 0; column < 4; ++column) {
            bytes[column] = quantize_or_padding(m, n + column, sums[column]);
          }
          block[row] = pack4(bytes);
        }
      }
      if (!FLOAT_OUTPUT) y_blocks[m4[i] * N_blocks + n4] = block;
    }
  }
}
