// Tiled GEMM by dot products of four bytes. A workgroup computes TILE_M x TILE_N outputs, a thread ROWS rows
// of WORDS times four adjacent columns, in registers.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require

layout(local_size_x_id = 0) in;  // one dimension: Adreno 840 computed wrong blocks with 8x8 and 4x16
layout(constant_id = 0) const uint THREADS = 64;
layout(constant_id = 1) const bool FLOAT_OUTPUT = false;
layout(constant_id = 2) const bool K_TAIL = false;
layout(constant_id = 3) const uint ROWS = 4;
layout(constant_id = 4) const uint WORDS = 1;
layout(constant_id = 5) const uint TILE_K = 64;
layout(constant_id = 6) const uint UNROLL = 1;                // chunks along K, a divisor of TILE_K / 16
layout(constant_id = 7) const bool BANDS_OF_COLUMNS = false;  // see choose_tile

#include "include/workgroup.glsl"
#include "include/int8_dot.glsl"
#include "include/linear.glsl"
#include "include/linear_output.glsl"

const uint THREADS_N = 16, THREADS_M = THREADS / THREADS_N;
const uint TILE_M = ROWS * THREADS_M, TILE_N = 4 * WORDS * THREADS_N;

shared ivec4 tiles[(TILE_M + TILE_N) * (TILE_K / 16 + 1)];

// The rows that the threads of a subgroup read together follow each other, for the banks' sake: thread_n + 16
// * word is the thread's word of columns, and its four columns are a quarter of the tile apart.
#define WEIGHT_SLOT(row) ((row) % 4 * (TILE_N / 4) + (row) / 4)
const bool INSIDE = false, STREAMED = false, WEIGHTS_IN_TILES = false, OWN_SUMS = false;
const uint ROTATION = 0;
#include "include/linear_tiles.glsl"

ivec4 sums[ROWS * WORDS];

void multiply_chunk(uint thread_m, uint thread_n, uint chunk) {
  ivec4 w[WORDS * 4];
  [[unroll]] for (uint i = 0; i < WORDS * 4; ++i)
    w[i] = tiles[(TILE_M + i % 4 * (TILE_N / 4) + i / 4 * THREADS_N + thread_n) * ROW_CHUNKS + chunk];
  [[unroll]] for (uint row = 0; row < ROWS; ++row) {
    ivec4 x_chunk = tiles[(row * THREADS_M + thread_m) * ROW_CHUNKS + chunk];
    [[unroll]] for (uint i = 0; i < WORDS * 4; ++i)
      sums[row * WORDS + i / 4][i % 4] += dot16(x_chunk, w[i]);
  }
}

void multiply_tile(uint thread_m, uint thread_n) {
  for (uint first = 0; first < CHUNKS; first += UNROLL) {
    [[unroll]] for (uint i = 0; i < UNROLL; ++i)
      multiply_chunk(thread_m, thread_n, first + i);
  }
}

void main() {
  if (!choose_tile()) return;
  find_rows();
  uint thread_n = gl_LocalInvocationID.x % THREADS_N, thread_m = gl_LocalInvocationID.x / THREADS_N;
  [[unroll]] for (uint i = 0; i < ROWS * WORDS; ++i)
    sums[i] = ivec4(0);

  read_tile(0);
  for (uint tile = 0; tile < K_tiles; ++tile) {
    barrier();
    write_tile();
    barrier();
    read_tile(min(tile + 1, K_tiles - 1));
    multiply_tile(thread_m, thread_n);
  }

  [[unroll]] for (uint word = 0; word < WORDS; ++word) {
    uint n = n_first + 4 * (word * THREADS_N + thread_n);
    if (n >= N) continue;
    Channels channels = read_channels(n);
    [[unroll]] for (uint row = 0; row < ROWS; ++row) {
      uint m = m_first + row * THREADS_M + thread_m;
      if (m < M) store4(m, n, sums[row * WORDS + word], channels);
    }
  }
}
