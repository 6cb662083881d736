// Tiled GEMM over 4H4W. A workgroup of 64 threads computes 64 columns and 64 / THREADS_N rows of blocks; each
// thread holds BLOCKS_M x BLOCKS_N blocks of 4x4 outputs in registers. No shared memory: the threads of a row
// read the same block of x (a broadcast), and the 16 bytes of a weight row that a thread loads have
// neighbours that the cache keeps for its next steps.
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

const uint TILE_BLOCKS_N = 16;
const uint THREADS_N = TILE_BLOCKS_N / BLOCKS_N;
const uint THREADS_M = 64 / THREADS_N;
const uint TILE_BLOCKS_M = THREADS_M * BLOCKS_M;

layout(set = 0, binding = 0) readonly buffer X {
  ivec4 x[];  // 4H4W: [m4 * K_blocks + k4]
};
layout(set = 0, binding = 1) readonly buffer Weights {
  ivec4 weights[];  // [n * K_chunks + k16], zero behind K: the order of the GEMV
};
layout(set = 0, binding = 5) writeonly buffer YBlocks {
  ivec4 y_blocks[];  // 4H4W
};
layout(set = 0, binding = 5) writeonly buffer YFloats {
  float y_floats[];  // [m * N + n]
};

void store_float(uint m, uint n, int accumulator) {
  if (m < M && n < N) y_floats[m * N + n] = dequantize(accumulator, n);
}

int quantize_or_padding(uint m, uint n, int accumulator) {
  return m < M && n < N ? quantize(dequantize(accumulator, n)) : 0;
}

void main() {
  uint M_blocks = (M + 3) / 4, N_blocks = (N + 3) / 4;
  uint tiles_m = (M_blocks + TILE_BLOCKS_M - 1) / TILE_BLOCKS_M;
  // Neighbouring workgroups share their weights.
  uint tile_m = workgroup_index() % tiles_m, tile_n = workgroup_index() / tiles_m;
  uint thread_n = gl_LocalInvocationID.x % THREADS_N, thread_m = gl_LocalInvocationID.x / THREADS_N;
  if (tile_n * TILE_BLOCKS_N >= N_blocks) return;

  uint m4[BLOCKS_M];
  uint x_row[BLOCKS_M];
  [[unroll]] for (uint i = 0; i < BLOCKS_M; ++i) {
    m4[i] = tile_m * TILE_BLOCKS_M + i * THREADS_M + thread_m;
    x_row[i] = min(m4[i], M_blocks - 1) * K_blocks;
  }
  uint K_chunks = (K_blocks + 3) / 4;
  uint n4[BLOCKS_N];
  uint weight_row[BLOCKS_N * 4];
  [[unroll]] for (uint j = 0; j < BLOCKS_N; ++j) {
    n4[j] = tile_n * TILE_BLOCKS_N + j * THREADS_N + thread_n;
    [[unroll]] for (uint column = 0; column < 4; ++column)
      weight_row[j * 4 + column] = min(4 * n4[j] + column, N - 1) * K_chunks;
  }

  // accumulators[block][row][column]
  ivec4 accumulators[BLOCKS_M * BLOCKS_N * 4];
  [[unroll]] for (uint i = 0; i < BLOCKS_M * BLOCKS_N * 4; ++i)
    accumulators[i] = ivec4(0);

  for (uint k16 = 0; k16 < K_chunks; ++k16) {
    ivec4 w[BLOCKS_N * 4];
    [[unroll]] for (uint column = 0; column < BLOCKS_N * 4; ++column)
      w[column] = weights[weight_row[column] + k16];
    [[unroll]] for (uint word = 0; word < 4; ++word) {
      uint k4 = min(4 * k16 + word, K_blocks - 1);  // behind K any x will do: it meets zero weights
      [[unroll]] for (uint i = 0; i < BLOCKS_M; ++i) {
        ivec4 x_block = x[x_row[i] + k4];
        [[unroll]] for (uint j = 0; j < BLOCKS_N; ++j) {
          [[unroll]] for (uint row = 0; row < 4; ++row) {
            accumulators[(i * BLOCKS_N + j) * 4 + row] +=
                ivec4(dot4(x_block[row], w[j * 4][word]), dot4(x_block[row], w[j * 4 + 1][word]),
                      dot4(x_block[row], w[j * 4 + 2][word]), dot4(x_block[row], w[j * 4 + 3][word]));
          }
        }
      }
    }
  }

  [[unroll]] for (uint i = 0; i < BLOCKS_M; ++i) {
    [[unroll]] for (uint j = 0; j < BLOCKS_N; ++j) {
      if (m4[i] >= M_blocks || n4[j] >= N_blocks) continue;
      ivec4 block;
      [[unroll]] for (uint row = 0; row < 4; ++row) {
        ivec4 sums = accumulators[(i * BLOCKS_N + j) * 4 + row];
        uint m = 4 * m4[i] + row, n = 4 * n4[j];
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
      if (!FLOAT_OUTPUT) y_blocks[m4[i] * N_blocks + n4[j]] = block;
    }
  }
}
