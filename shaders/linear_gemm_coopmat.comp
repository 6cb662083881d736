// Tiled GEMM by cooperative matrices (int8 x int8 -> int32). A workgroup computes TILE_M x TILE_N outputs.
// SUBGROUPS_M x SUBGROUPS_N subgroups share them, and SLICES such sets share the steps along K of each tile
// and add up at the end.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_EXT_shader_explicit_arithmetic_types_int8 : require
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_KHR_shader_subgroup_basic : require

layout(local_size_x_id = 0) in;
layout(constant_id = 0) const uint THREADS = 128;
layout(constant_id = 1) const bool FLOAT_OUTPUT = false;
layout(constant_id = 2) const bool K_TAIL = false;
layout(constant_id = 3) const uint LANES = 32;  // of a subgroup
layout(constant_id = 4) const uint MATRIX_M = 16;
layout(constant_id = 5) const uint MATRIX_N = 16;
layout(constant_id = 6) const uint MATRIX_K = 32;
layout(constant_id = 7) const uint TILE_M = 64;
layout(constant_id = 8) const uint TILE_N = 64;
layout(constant_id = 9) const uint TILE_K = 64;
layout(constant_id = 10) const uint SUBGROUPS_M = 2;
layout(constant_id = 11) const uint SUBGROUPS_N = 2;
layout(constant_id = 12) const uint SLICES = 1;
layout(constant_id = 13) const bool INSIDE = false;    // every tile of y is full
layout(constant_id = 14) const bool STREAMED = false;  // x and the weights pass by the first cache
layout(constant_id = 15) const uint ROTATION = 0;  // tiles along K from one workgroup's start to the next's
// The weights lie in PackOrder::tiles. OWN_SUMS, TILE_K is 64, TILE_N a multiple of 64, THREADS a divisor or
// a multiple of 256.
layout(constant_id = 16) const bool WEIGHTS_IN_TILES = false;
// Lanes hold the elements of a matrix of sums as NVIDIA's do. Then columns are dealt out so that those of a
// lane are adjacent, and it finishes and stores its own sums without shared memory. MATRIX_M and MATRIX_N are
// 16, a subgroup has 64 or 32 columns, and N is a multiple of 16.
layout(constant_id = 17) const bool OWN_SUMS = false;
layout(constant_id = 18) const bool BANDS_OF_COLUMNS = false;  // see choose_tile

#include "include/workgroup.glsl"
#include "include/linear.glsl"
#include "include/linear_output.glsl"

const uint SUBGROUPS = SUBGROUPS_M * SUBGROUPS_N;
const uint SUBGROUP_ROWS = TILE_M / SUBGROUPS_M, SUBGROUP_COLUMNS = TILE_N / SUBGROUPS_N;
const uint FRAGMENTS_M = SUBGROUP_ROWS / MATRIX_M, FRAGMENTS_N = SUBGROUP_COLUMNS / MATRIX_N;
const uint FRAGMENTS = FRAGMENTS_M + FRAGMENTS_N;
// TILE_STEPS, which the build defines: TILE_K is TILE_STEPS * MATRIX_K * SLICES. An even number: the two sets
// of fragments alternate.
const uint STEPS = TILE_STEPS;
// Of the rows of products of a tile's last step, so many lie between the barriers. Of short rows none should.
const uint ROWS_BETWEEN = FRAGMENTS_N < 4 ? 0 : FRAGMENTS_M / 4;

// The sums pass through shared memory in strips of MATRIX_M rows, for which each subgroup has room of its
// own.
const uint WORDS = SUBGROUP_COLUMNS / 4;
const uint STRIP_ROW_CHUNKS = WORDS + 2;  // NVIDIA's lanes then store the sums to different banks
const uint STRIP_CHUNKS = MATRIX_M * STRIP_ROW_CHUNKS;
const uint STRIPS_CHUNKS = SLICES * SUBGROUPS * STRIP_CHUNKS;
const uint ALL_TILE_CHUNKS = (TILE_M + TILE_N) * (TILE_K / 16 + 1);
shared ivec4 tiles[OWN_SUMS || ALL_TILE_CHUNKS > STRIPS_CHUNKS ? ALL_TILE_CHUNKS : STRIPS_CHUNKS];

// OWN_SUMS: where the weights of a column lie so that the columns of a lane are adjacent: two from each half
// of each matrix.
const uint LANE_COLUMNS = SUBGROUP_COLUMNS / 4;
uint weight_slot(uint row) {
  if (!OWN_SUMS) return row;
  return row / SUBGROUP_COLUMNS * SUBGROUP_COLUMNS + row / 4 % FRAGMENTS_N * 16 + row / 2 % 2 * 8 +
         row / LANE_COLUMNS % 4 * 2 + row % 2;
}
#define WEIGHT_SLOT(row) weight_slot(row)
#include "include/linear_tiles.glsl"

#define STEP_CHUNK(step) ((slice * STEPS + (step)) * (MATRIX_K / 16))
#define LOAD_X_FRAGMENT(set, step, i)                                                      \
  coopMatLoad(a[(set) * FRAGMENTS_M + (i)], tiles,                                         \
              STEP_CHUNK(step) + (subgroup_row + (i) * MATRIX_M) * ROW_CHUNKS, ROW_CHUNKS, \
              gl_CooperativeMatrixLayoutRowMajor)
#define LOAD_WEIGHT_FRAGMENT(set, step, j)                                                             \
  coopMatLoad(b[(set) * FRAGMENTS_N + (j)], tiles,                                                     \
              STEP_CHUNK(step) + (TILE_M + subgroup_column + (j) * MATRIX_N) * ROW_CHUNKS, ROW_CHUNKS, \
              gl_CooperativeMatrixLayoutColumnMajor)
#define LOAD_FRAGMENTS(set, step) LOAD_FRAGMENTS_PART(set, step, 0, 1)
// The weights come first: the first row of the next step takes all of them.
#define LOAD_FRAGMENTS_PART(set, step, part, parts)                                                     \
  [[unroll]] for (uint f = (part) * FRAGMENTS / (parts); f < ((part) + 1) * FRAGMENTS / (parts); ++f) { \
    if (f < FRAGMENTS_N)                                                                                \
      LOAD_WEIGHT_FRAGMENT(set, step, f);                                                               \
    else                                                                                                \
      LOAD_X_FRAGMENT(set, step, f - FRAGMENTS_N);                                                      \
  }
#define MULTIPLY_ROW(set, i)                                                                              \
  [[unroll]] for (uint column = 0; column < FRAGMENTS_N; ++column) {                                      \
    const uint j = (i) % 2 == 1 ? FRAGMENTS_N - 1 - column : column;                                      \
    sums[(i) * FRAGMENTS_N + j] = coopMatMulAdd(a[(set) * FRAGMENTS_M + (i)], b[(set) * FRAGMENTS_N + j], \
                                                sums[(i) * FRAGMENTS_N + j]);                             \
  }

coopmat<int, gl_ScopeSubgroup, MATRIX_M, MATRIX_N, gl_MatrixUseAccumulator> sums[FRAGMENTS_M * FRAGMENTS_N];

// LANE_SUMS: four adjacent columns of one row. NVIDIA's lane l holds of a 16 x 16 matrix the rows l / 4 and
// l / 4 + 8, and of both halves of the columns those at 2 * (l % 4) and behind it.
#define LANE_SUMS(i, half_row, j)                                                                         \
  ivec4(sums[(i) * FRAGMENTS_N + (j)][(half_row) * 4], sums[(i) * FRAGMENTS_N + (j)][(half_row) * 4 + 1], \
        sums[(i) * FRAGMENTS_N + (j)][(half_row) * 4 + 2],                                                \
        sums[(i) * FRAGMENTS_N + (j)][(half_row) * 4 + 3])

void store_lane_sums(uint m_start, uint n_start) {
  uint n = n_start + gl_SubgroupInvocationID % 4 * LANE_COLUMNS;
  if (n >= N) return;
  Channels channels[FRAGMENTS_N];
  [[unroll]] for (uint j = 0; j < FRAGMENTS_N; ++j)
    channels[j] = read_aligned_channels(n + 4 * j);
  [[unroll]] for (uint i = 0; i < FRAGMENTS_M; ++i) {
    [[unroll]] for (uint half_row = 0; half_row < 2; ++half_row) {
      uint m = m_start + i * MATRIX_M + half_row * 8 + gl_SubgroupInvocationID / 4;
      ivec4 words;
      [[unroll]] for (uint j = 0; j < FRAGMENTS_N; ++j) {
        vec4 y = dequantize4(LANE_SUMS(i, half_row, j), channels[j]);
        if (!FLOAT_OUTPUT)
          words[j] = quantize_whole4(y);
        else if (INSIDE || m < M)
          y_float_words[(m * N + n) / 4 + j] = y;
      }
      if (FLOAT_OUTPUT || (!INSIDE && m >= M)) continue;
      if (FRAGMENTS_N == 4)
        y_chunks[(m * N + n) / 16] = words;
      else
        y_pairs[(m * N + n) / 8] = words.xy;
    }
  }
}

// The loads for what comes next are dealt out among the rows of a step's products; otherwise shared memory
// and the matrix units wait for each other.
#define STEP(step)                                                                     \
  {                                                                                    \
    const uint set = (step) % 2, next_set = 1 - set, next_step = ((step) + 1) % STEPS; \
    const bool last_of_tile = next_step == 0;                                          \
    const uint rows_between = last_of_tile ? ROWS_BETWEEN : 0;                         \
    const uint rows_behind = FRAGMENTS_M - rows_between;                               \
    if (last_of_tile) {                                                                \
      barrier();                                                                       \
      write_tile();                                                                    \
      [[unroll]] for (uint row = 0; row < rows_between; ++row)                         \
        MULTIPLY_ROW(set, row);                                                        \
      barrier();                                                                       \
    }                                                                                  \
    [[unroll]] for (uint row = 0; row < rows_behind; ++row) {                          \
      MULTIPLY_ROW(set, rows_between + row);                                           \
      LOAD_FRAGMENTS_PART(next_set, next_step, row, rows_behind);                      \
      if (last_of_tile) read_tile_part(min(turn + 2, K_tiles - 1), row, rows_behind);  \
    }                                                                                  \
  }
// Written out. Of a loop, NVIDIA's compiler makes another loop, whatever [[unroll]] says; then it copies
// fragments from one turn to the next, waits for their loads to do so, and takes 7 % longer at 4096^3.
#if TILE_STEPS == 2
#define ALL_STEPS STEP(0) STEP(1)
#elif TILE_STEPS == 4
#define ALL_STEPS STEP(0) STEP(1) STEP(2) STEP(3)
#elif TILE_STEPS == 8
#define ALL_STEPS STEP(0) STEP(1) STEP(2) STEP(3) STEP(4) STEP(5) STEP(6) STEP(7)
#endif

void main() {
  if (!choose_tile()) return;
  find_rows();
  uint slice = gl_SubgroupID / SUBGROUPS, in_slice = gl_SubgroupID % SUBGROUPS;
  uint subgroup_row = in_slice / SUBGROUPS_N * SUBGROUP_ROWS;
  uint subgroup_column = in_slice % SUBGROUPS_N * SUBGROUP_COLUMNS;

  coopmat<int8_t, gl_ScopeSubgroup, MATRIX_M, MATRIX_K, gl_MatrixUseA> a[2 * FRAGMENTS_M];
  coopmat<int8_t, gl_ScopeSubgroup, MATRIX_K, MATRIX_N, gl_MatrixUseB> b[2 * FRAGMENTS_N];
  [[unroll]] for (uint i = 0; i < FRAGMENTS_M * FRAGMENTS_N; ++i)
    sums[i] = coopmat<int, gl_ScopeSubgroup, MATRIX_M, MATRIX_N, gl_MatrixUseAccumulator>(0);

  // While a tile is multiplied, the next one is on its way from global memory, and the fragments of the next
  // step from shared memory. No branch depends on which tile it is: behind one, NVIDIA's compiler waits for
  // the loads at once. So the last tiles are read again, for nothing.
  read_tile(0);
  write_tile();
  barrier();
  read_tile(min(1, K_tiles - 1));
  LOAD_FRAGMENTS(0, 0);
  uint turn = 0;
  do {
    ALL_STEPS
  } while (++turn < K_tiles);

  if (OWN_SUMS) {
    store_lane_sums(m_first + subgroup_row, n_first + subgroup_column);
    return;
  }
  uint slice_thread = slice * LANES + gl_SubgroupInvocationID;
  uint word = slice_thread % WORDS, n = n_first + subgroup_column + 4 * word;
  Channels channels = read_channels(n);
  barrier();
  [[unroll]] for (uint strip = 0; strip < FRAGMENTS_M; ++strip) {
    if (strip > 0) {
      if (SLICES > 1)
        barrier();
      else
        subgroupBarrier();
    }
    [[unroll]] for (uint j = 0; j < FRAGMENTS_N; ++j)
      coopMatStore(sums[strip * FRAGMENTS_N + j], tiles, gl_SubgroupID * STRIP_CHUNKS + j * (MATRIX_N / 4),
                   STRIP_ROW_CHUNKS, gl_CooperativeMatrixLayoutRowMajor);
    if (SLICES > 1)
      barrier();
    else
      subgroupBarrier();
    [[unroll]] for (uint first = 0; first < MATRIX_M * WORDS; first += SLICES * LANES) {
      uint row = (first + slice_thread) / WORDS;
      uint m = m_first + subgroup_row + strip * MATRIX_M + row;
      if (row < MATRIX_M && m < M && n < N) {
        ivec4 total = ivec4(0);
        [[unroll]] for (uint s = 0; s < SLICES; ++s)
          total += tiles[(s * SUBGROUPS + in_slice) * STRIP_CHUNKS + row * STRIP_ROW_CHUNKS + word];
        store4(m, n, total, channels);
      }
    }
  }
}
