// What the tiled GEMMs share: which tile of y a workgroup computes, and the way of x and the weights from
// global memory through registers into shared memory, TILE_K bytes of K at a time. Before it: THREADS,
// TILE_M, TILE_N, TILE_K, K_TAIL (the last tile along K is not full), include/linear.glsl, and
// WEIGHT_SLOT(row), the place of a weight row in shared memory.

// Rows are chunks of 16 bytes. One more in shared memory than in a tile makes their number odd, which lets
// the same chunk of adjacent rows lie in different banks.
const uint CHUNKS = TILE_K / 16;
const uint ROW_CHUNKS = CHUNKS + 1;
const uint TILE_CHUNKS = (TILE_M + TILE_N) * ROW_CHUNKS;
const uint X_LOADS = (TILE_M * CHUNKS + THREADS - 1) / THREADS;
const uint WEIGHT_LOADS = (TILE_N * CHUNKS + THREADS - 1) / THREADS;
const bool X_LOADS_FULL = X_LOADS * THREADS == TILE_M * CHUNKS;
const bool WEIGHT_LOADS_FULL = WEIGHT_LOADS * THREADS == TILE_N * CHUNKS;

layout(set = 0, binding = 0) readonly buffer X {
  ivec4 x[];  // [m * K_blocks + k16], zero behind K
};
layout(set = 0, binding = 1) readonly buffer Weights {
  ivec4 weights[];  // [n * K_blocks + k16], zero behind K
};

ivec4 x_registers[X_LOADS];
ivec4 weight_registers[WEIGHT_LOADS];
uint x_rows[X_LOADS];
uint weight_rows[WEIGHT_LOADS];
uint m_first, n_first;  // of the workgroup's tile of y
uint K_tiles;

// False if the workgroup has nothing to do. Workgroups that run together compute a block of RASTER tiles of
// rows, so that the caches serve most of what they read.
bool choose_tile() {
  const uint RASTER = 8;
  uint tiles_m = (M + TILE_M - 1) / TILE_M, tiles_n = (N + TILE_N - 1) / TILE_N;
  uint index = workgroup_index();
  if (index >= tiles_m * tiles_n) return false;
  uint band = index / (RASTER * tiles_n), in_band = index % (RASTER * tiles_n);
  uint band_tiles = min(tiles_m - band * RASTER, RASTER);
  m_first = (band * RASTER + in_band % band_tiles) * TILE_M;
  n_first = in_band / band_tiles * TILE_N;
  K_tiles = (K_blocks + CHUNKS - 1) / CHUNKS;
  return true;
}

// The row of a tile's item. Eight threads that store together shall meet all banks: with rows of 4 + 1 chunks
// that takes the four chunks of two rows that are four apart.
uint tile_row(uint item) {
  return CHUNKS == 4 ? item / 32 * 8 + item / 8 % 4 + item / 4 % 2 * 4 : item / CHUNKS;
}

uint thread_item(uint i) { return gl_LocalInvocationID.x + i * THREADS; }

void find_rows() {
  [[unroll]] for (uint i = 0; i < X_LOADS; ++i)
    x_rows[i] = min(m_first + tile_row(thread_item(i)), M - 1) * K_blocks;
  [[unroll]] for (uint i = 0; i < WEIGHT_LOADS; ++i)
    weight_rows[i] = min(n_first + tile_row(thread_item(i)), N - 1) * K_blocks;
}

void read_tile(uint tile) {
  [[unroll]] for (uint i = 0; i < X_LOADS; ++i) {
    uint k16 = tile * CHUNKS + thread_item(i) % CHUNKS;
    if (X_LOADS_FULL || thread_item(i) < TILE_M * CHUNKS)
      x_registers[i] = K_TAIL && k16 >= K_blocks ? ivec4(0) : x[x_rows[i] + k16];
  }
  [[unroll]] for (uint i = 0; i < WEIGHT_LOADS; ++i) {
    uint k16 = tile * CHUNKS + thread_item(i) % CHUNKS;  // behind K any weights will do: they meet zero x
    if (WEIGHT_LOADS_FULL || thread_item(i) < TILE_N * CHUNKS)
      weight_registers[i] = weights[weight_rows[i] + (K_TAIL ? min(k16, K_blocks - 1) : k16)];
  }
}

void write_tile() {
  [[unroll]] for (uint i = 0; i < X_LOADS; ++i) {
    uint item = thread_item(i);
    if (X_LOADS_FULL || item < TILE_M * CHUNKS)
      tiles[tile_row(item) * ROW_CHUNKS + item % CHUNKS] = x_registers[i];
  }
  [[unroll]] for (uint i = 0; i < WEIGHT_LOADS; ++i) {
    uint item = thread_item(i);
    if (WEIGHT_LOADS_FULL || item < TILE_N * CHUNKS)
      tiles[(TILE_M + WEIGHT_SLOT(tile_row(item))) * ROW_CHUNKS + item % CHUNKS] = weight_registers[i];
  }
}
