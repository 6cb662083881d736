// A few rows of x times W, which is read once, by cooperative matrices. Each subgroup keeps the fragments of
// x of its slice of K in registers. W streams by: a block of MATRIX_N columns of y at a time, through a part
// of shared memory that is the subgroup's own, so that subgroups wait for each other only to add up their
// sums.
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
layout(constant_id = 6) const uint X_ROWS = 16;     // M at least, a multiple of MATRIX_M
layout(constant_id = 7) const uint STEPS = 16;      // of MATRIX_K in a slice
layout(constant_id = 8) const uint PIECES = 4;      // in which a slice passes through shared memory
layout(constant_id = 9) const uint BLOCKS = 2;      // of columns that a workgroup computes, 8 at most
layout(constant_id = 10) const bool WHOLE = false;  // N is a multiple of MATRIX_N

#include "include/workgroup.glsl"
#include "include/linear.glsl"
#include "include/linear_output.glsl"

layout(set = 0, binding = 0) readonly buffer X {
  ivec4 x[];  // [m * K_blocks + k16], zero behind K
};
// Coherent, so that NVIDIA's compiler leaves the loads where they are: it would move them down to where they
// are used, and wait for each block in turn. W passes by the first cache, too, which it would only fill.
layout(set = 0, binding = 1) coherent readonly buffer Weights {
  ivec4 weights[];  // [n * K_blocks + k16]
};
layout(set = 0, binding = 2) coherent readonly buffer CoherentSums { ivec4 coherent_sums[]; };
layout(set = 0, binding = 3) coherent readonly buffer CoherentScales { vec4 coherent_scales[]; };
layout(set = 0, binding = 4) coherent readonly buffer CoherentBias { vec4 coherent_bias[]; };

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

ivec4 x_registers[FRAGMENTS * PIECES * X_LOADS];
ivec4 weight_registers[PIECES * WEIGHT_LOADS];

// The lane's row of those that are loaded together, and its chunk of a piece.
uint lane_row() { return gl_SubgroupInvocationID / PIECE_CHUNKS; }
uint lane_chunk(uint piece) {
  return (gl_SubgroupID * PIECES + piece) * PIECE_CHUNKS + gl_SubgroupInvocationID % PIECE_CHUNKS;
}

void read_x() {
  [[unroll]] for (uint f = 0; f < FRAGMENTS; ++f) {
    [[unroll]] for (uint p = 0; p < PIECES; ++p) {
      [[unroll]] for (uint i = 0; i < X_LOADS; ++i) {
        uint m = min(f * MATRIX_M + i * LANE_ROWS + lane_row(), M - 1), k16 = lane_chunk(p);
        x_registers[(f * PIECES + p) * X_LOADS + i] = k16 < K_blocks ? x[m * K_blocks + k16] : ivec4(0);
      }
    }
  }
}

void read_weights(uint piece, uint block) {
  uint k16 = min(lane_chunk(piece), K_blocks - 1);  // behind K any weights will do: they meet zero x
  uint first_row = block * MATRIX_N + lane_row();
  [[unroll]] for (uint i = 0; i < WEIGHT_LOADS; ++i) {
    uint row = first_row + i * LANE_ROWS;
    weight_registers[piece * WEIGHT_LOADS + i] = weights[(WHOLE ? row : min(row, N - 1)) * K_blocks + k16];
  }
}

// What comes of a channel's parameters, as they are in memory: multiplied, they would be waited for at once.
Channels read_raw_channels(uint n) {
  Channels raw;
  if (WHOLE) {
    raw.offsets = coherent_sums[n / 4];
    raw.multipliers = coherent_scales[n / 4];
    raw.biases = (flags & FLAG_BIAS) != 0u ? coherent_bias[n / 4] : vec4(0.0);
    return raw;
  }
  [[unroll]] for (uint i = 0; i < 4; ++i) {
    uint channel = min(n + i, N - 1);
    raw.offsets[i] = weight_sums[channel];
    raw.multipliers[i] = weight_scales[channel];
    raw.biases[i] = (flags & FLAG_BIAS) != 0u ? bias[channel] : 0.0;
  }
  return raw;
}

Channels finished(Channels raw) {
  return Channels(input_zero_point * raw.offsets, input_scale * raw.multipliers, raw.biases);
}

coopmat<int8_t, gl_ScopeSubgroup, MATRIX_M, MATRIX_K, gl_MatrixUseA> a[FRAGMENTS * STEPS];
coopmat<int, gl_ScopeSubgroup, MATRIX_M, MATRIX_N, gl_MatrixUseAccumulator> sums[FRAGMENTS];

// Block b of the workgroup's. As soon as a piece of it lies in shared memory, that of the next block is on
// its way to the registers. Each block is written out, below: nothing of a last one is read for nothing, and
// NVIDIA's compiler copies no registers from one turn of a loop to the next, which would wait for their
// loads.
#define BLOCK(b)                                                                                             \
  if ((b) < BLOCKS) {                                                                                        \
    const bool more = (b) + 1 < BLOCKS;                                                                      \
    uint next_block = min(first_block + (b) + 1, blocks - 1), n = (first_block + (b)) * MATRIX_N + 4 * word; \
    if (more) channels[((b) + 1) % 2] = read_raw_channels(next_block * MATRIX_N + 4 * word);                 \
    [[unroll]] for (uint f = 0; f < FRAGMENTS; ++f)                                                          \
      sums[f] = coopmat<int, gl_ScopeSubgroup, MATRIX_M, MATRIX_N, gl_MatrixUseAccumulator>(0);              \
    [[unroll]] for (uint p = 0; p < PIECES; ++p) {                                                           \
      subgroupBarrier();                                                                                     \
      [[unroll]] for (uint i = 0; i < WEIGHT_LOADS; ++i)                                                     \
        pieces[place + i * LANE_ROWS * ROW_CHUNKS] = weight_registers[p * WEIGHT_LOADS + i];                 \
      if (more) read_weights(p, next_block);                                                                 \
      subgroupBarrier();                                                                                     \
      [[unroll]] for (uint s = 0; s < PIECE_STEPS; ++s) {                                                    \
        coopmat<int8_t, gl_ScopeSubgroup, MATRIX_K, MATRIX_N, gl_MatrixUseB> fragment;                       \
        coopMatLoad(fragment, pieces, own + s * (MATRIX_K / 16), ROW_CHUNKS,                                 \
                    gl_CooperativeMatrixLayoutColumnMajor);                                                  \
        [[unroll]] for (uint f = 0; f < FRAGMENTS; ++f)                                                      \
          sums[f] = coopMatMulAdd(a[f * STEPS + p * PIECE_STEPS + s], fragment, sums[f]);                    \
      }                                                                                                      \
    }                                                                                                        \
    if ((b) > 0) barrier();                                                                                  \
    [[unroll]] for (uint f = 0; f < FRAGMENTS; ++f)                                                          \
      coopMatStore(sums[f], partial, gl_SubgroupID * SUMS + f * MATRIX_M * SUM_ROW, SUM_ROW,                 \
                   gl_CooperativeMatrixLayoutRowMajor);                                                      \
    barrier();                                                                                               \
    if (m < M && n < N) {                                                                                    \
      ivec4 total = ivec4(0);                                                                                \
      [[unroll]] for (uint s = 0; s < SUBGROUPS; ++s)                                                        \
        total += partial[s * SUMS + m * SUM_ROW + word];                                                     \
      store4(m, n, total, finished(channels[(b) % 2]));                                                      \
    }                                                                                                        \
  }

void main() {
  uint blocks = (N + MATRIX_N - 1) / MATRIX_N, first_block = workgroup_index() * BLOCKS;
  if (first_block >= blocks) return;  // the whole workgroup: the folded grid may be larger than the work
  uint own = gl_SubgroupID * PIECE;
  uint place = own + lane_row() * ROW_CHUNKS + gl_SubgroupInvocationID % PIECE_CHUNKS;
  uint m = gl_LocalInvocationID.x / WORDS, word = gl_LocalInvocationID.x % WORDS;  // that the thread finishes

  Channels channels[2];
  read_x();
  channels[0] = read_raw_channels(first_block * MATRIX_N + 4 * word);
  [[unroll]] for (uint p = 0; p < PIECES; ++p)
    read_weights(p, first_block);
  [[unroll]] for (uint f = 0; f < FRAGMENTS; ++f) {
    [[unroll]] for (uint p = 0; p < PIECES; ++p) {
      subgroupBarrier();
      [[unroll]] for (uint i = 0; i < X_LOADS; ++i)
        pieces[place + i * LANE_ROWS * ROW_CHUNKS] = x_registers[(f * PIECES + p) * X_LOADS + i];
      subgroupBarrier();
      [[unroll]] for (uint s = 0; s < PIECE_STEPS; ++s)
        coopMatLoad(a[f * STEPS + p * PIECE_STEPS + s], pieces, own + s * (MATRIX_K / 16), ROW_CHUNKS,
                    gl_CooperativeMatrixLayoutRowMajor);
    }
  }
  BLOCK(0) BLOCK(1) BLOCK(2) BLOCK(3) BLOCK(4) BLOCK(5) BLOCK(6) BLOCK(7)
}
