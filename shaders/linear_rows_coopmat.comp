// A few rows of x times W, which is read once, by cooperative matrices. Each subgroup keeps the fragments of
// x of its slice of K in registers. W streams by: MATRIX_N columns of y at a time, through a part of shared
// memory that is the subgroup's own, so that subgroups wait for each other only to add up their sums, GROUP
// such blocks of columns together.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_EXT_shader_explicit_arithmetic_types_int8 : require
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_KHR_shader_subgroup_basic : require

layout(local_size_x_id = 0) in;
layout(constant_id = 0) const uint THREADS = 256;
layout(constant_id = 1) const bool FLOAT_OUTPUT = false;
layout(constant_id = 2) const uint LANES = 32;  // of a subgroup
layout(constant_id = 3) const uint MATRIX_M = 16;
layout(constant_id = 4) const uint MATRIX_N = 16;
layout(constant_id = 5) const uint MATRIX_K = 32;
layout(constant_id = 6) const uint X_ROWS = 16;        // M at least, a multiple of MATRIX_M
layout(constant_id = 7) const uint STEPS = 16;         // of MATRIX_K in a slice
layout(constant_id = 8) const uint PIECES = 2;         // in which a slice passes through shared memory
layout(constant_id = 9) const uint BLOCKS = 2;         // of columns that a workgroup computes
layout(constant_id = 10) const uint GROUP = 2;         // blocks
layout(constant_id = 11) const bool STREAMED = false;  // W passes by the first cache

#include "include/workgroup.glsl"
#include "include/linear.glsl"
#include "include/linear_output.glsl"

layout(set = 0, binding = 0) readonly buffer X {
  ivec4 x[];  // [m * K_blocks + k16], zero behind K
};
layout(set = 0, binding = 1) readonly buffer Weights {
  ivec4 weights[];  // [n * K_blocks + k16]
};
layout(set = 0, binding = 1) coherent readonly buffer WeightsStreamed { ivec4 weights_streamed[]; };

const uint SUBGROUPS = THREADS / LANES;
const uint FRAGMENTS = X_ROWS / MATRIX_M;
const uint PIECE_STEPS = STEPS / PIECES;
const uint PIECE_CHUNKS = PIECE_STEPS * MATRIX_K / 16;  // of 16 bytes, in a row
const uint ROW_CHUNKS = PIECE_CHUNKS + 1;               // odd, for the banks' sake
const uint LANE_ROWS = LANES / PIECE_CHUNKS;            // rows of a piece that lanes load together
const uint X_LOADS = MATRIX_M / LANE_ROWS, WEIGHT_LOADS = MATRIX_N / LANE_ROWS;
const uint PIECE = (MATRIX_M > MATRIX_N ? MATRIX_M : MATRIX_N) * ROW_CHUNKS;
const uint WORDS = MATRIX_N / 4;
const uint SUM_ROW = WORDS + 1;
const uint SUMS = X_ROWS * SUM_ROW;

shared ivec4 pieces[SUBGROUPS * PIECE];
shared ivec4 partial[SUBGROUPS * SUMS];  // sums of each subgroup

ivec4 x_registers[PIECES * X_LOADS];
ivec4 weight_registers[PIECES * WEIGHT_LOADS];

// The lane's row of those that are loaded together, and its chunk of a piece.
uint lane_row() { return gl_SubgroupInvocationID / PIECE_CHUNKS; }
uint lane_chunk(uint piece) {
  return (gl_SubgroupID * PIECES + piece) * PIECE_CHUNKS + gl_SubgroupInvocationID % PIECE_CHUNKS;
}

void read_x(uint fragment) {
  [[unroll]] for (uint p = 0; p < PIECES; ++p) {
    [[unroll]] for (uint i = 0; i < X_LOADS; ++i) {
      uint m = min(fragment * MATRIX_M + i * LANE_ROWS + lane_row(), M - 1), k16 = lane_chunk(p);
      x_registers[p * X_LOADS + i] = k16 < K_blocks ? x[m * K_blocks + k16] : ivec4(0);
    }
  }
}

void read_weights(uint block) {
  [[unroll]] for (uint p = 0; p < PIECES; ++p) {
    uint k16 = min(lane_chunk(p), K_blocks - 1);  // behind K any weights will do: they meet zero x
    [[unroll]] for (uint i = 0; i < WEIGHT_LOADS; ++i) {
      uint index = min(block * MATRIX_N + i * LANE_ROWS + lane_row(), N - 1) * K_blocks + k16;
      weight_registers[p * WEIGHT_LOADS + i] = STREAMED ? weights_streamed[index] : weights[index];
    }
  }
}

void main() {
  uint blocks = (N + MATRIX_N - 1) / MATRIX_N, first_block = workgroup_index() * BLOCKS;
  if (first_block >= blocks) return;  // the whole workgroup: the folded grid may be larger than the work
  uint last_block = min(first_block + BLOCKS, blocks) - 1;
  uint own = gl_SubgroupID * PIECE;
  uint place = own + lane_row() * ROW_CHUNKS + gl_SubgroupInvocationID % PIECE_CHUNKS;
  uint m = gl_LocalInvocationID.x / WORDS, word = gl_LocalInvocationID.x % WORDS;  // that the thread finishes
  Channels channels = read_channels(first_block * MATRIX_N + 4 * word);

  coopmat<int8_t, gl_ScopeSubgroup, MATRIX_M, MATRIX_K, gl_MatrixUseA> a[FRAGMENTS * STEPS];
  read_x(0);
  if (FRAGMENTS == 1) read_weights(first_block);
  [[unroll]] for (uint f = 0; f < FRAGMENTS; ++f) {
    [[unroll]] for (uint p = 0; p < PIECES; ++p) {
      subgroupBarrier();
      [[unroll]] for (uint i = 0; i < X_LOADS; ++i)
        pieces[place + i * LANE_ROWS * ROW_CHUNKS] = x_registers[p * X_LOADS + i];
      if (p + 1 == PIECES && f + 1 < FRAGMENTS) {
        read_x(f + 1);
        if (f + 2 == FRAGMENTS) read_weights(first_block);
      }
      subgroupBarrier();
      [[unroll]] for (uint s = 0; s < PIECE_STEPS; ++s)
        coopMatLoad(a[f * STEPS + p * PIECE_STEPS + s], pieces, own + s * (MATRIX_K / 16), ROW_CHUNKS,
                    gl_CooperativeMatrixLayoutRowMajor);
    }
  }

  for (uint group = first_block; group <= last_block; group += GROUP) {
    coopmat<int, gl_ScopeSubgroup, MATRIX_M, MATRIX_N, gl_MatrixUseAccumulator> sums[GROUP * FRAGMENTS];
    [[unroll]] for (uint g = 0; g < GROUP; ++g) {
      [[unroll]] for (uint f = 0; f < FRAGMENTS; ++f)
        sums[g * FRAGMENTS + f] =
            coopmat<int, gl_ScopeSubgroup, MATRIX_M, MATRIX_N, gl_MatrixUseAccumulator>(0);
      [[unroll]] for (uint p = 0; p < PIECES; ++p) {
        subgroupBarrier();
        [[unroll]] for (uint i = 0; i < WEIGHT_LOADS; ++i)
          pieces[place + i * LANE_ROWS * ROW_CHUNKS] = weight_registers[p * WEIGHT_LOADS + i];
        if (p + 1 == PIECES) read_weights(min(group + g + 1, last_block));
        subgroupBarrier();
        [[unroll]] for (uint s = 0; s < PIECE_STEPS; ++s) {
          coopmat<int8_t, gl_ScopeSubgroup, MATRIX_K, MATRIX_N, gl_MatrixUseB> b;
          coopMatLoad(b, pieces, own + s * (MATRIX_K / 16), ROW_CHUNKS,
                      gl_CooperativeMatrixLayoutColumnMajor);
          [[unroll]] for (uint f = 0; f < FRAGMENTS; ++f)
            sums[g * FRAGMENTS + f] =
                coopMatMulAdd(a[f * STEPS + p * PIECE_STEPS + s], b, sums[g * FRAGMENTS + f]);
        }
      }
    }
    [[unroll]] for (uint g = 0; g < GROUP; ++g) {
      barrier();
      [[unroll]] for (uint f = 0; f < FRAGMENTS; ++f)
        coopMatStore(sums[g * FRAGMENTS + f], partial, gl_SubgroupID * SUMS + f * MATRIX_M * SUM_ROW, SUM_ROW,
                     gl_CooperativeMatrixLayoutRowMajor);
      barrier();
      uint n = (group + g) * MATRIX_N + 4 * word;
      if (m < M && n < N && group + g <= last_block) {
        ivec4 total = ivec4(0);
        [[unroll]] for (uint s = 0; s < SUBGROUPS; ++s)
          total += partial[s * SUMS + m * SUM_ROW + word];
        store4(m, n, total, channels);
      }
      channels = read_channels(n + MATRIX_N);
    }
  }
}
