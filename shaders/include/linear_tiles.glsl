// What the tiled GEMMs share: which tile of y a workgroup computes, and the way of x and the weights from
// global memory through registers into shared memory, TILE_K bytes of K at a time. Before it: THREADS,
// TILE_M, TILE_N, TILE_K, K_TAIL (the last tile along K is not full), INSIDE, STREAMED, ROTATION,
// BANDS_OF_COLUMNS, WEIGHTS_IN_TILES, OWN_SUMS, include/linear.glsl, and WEIGHT_SLOT(row), the place of a
// weight row in shared memory: the sum of the places of a thread's first row and of the step from there.

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
  ivec4 weights[];  // [n * K_blocks + k16], zero behind K; or WEIGHTS_IN_TILES
};
// The same for STREAMED reads. On NVIDIA they pass by the cache that shares its way with shared memory.
layout(set = 0, binding = 0) coherent readonly buffer XStreamed { ivec4 x_streamed[]; };
layout(set = 0, binding = 1) coherent readonly buffer WeightsStreamed { ivec4 weights_streamed[]; };

ivec4 x_registers[X_LOADS];
ivec4 weight_registers[WEIGHT_LOADS];
uint x_first,
    weight_first;      // INSIDE: where the thread's first chunk lies at K = 0; the others follow from it
uint x_rows[X_LOADS];  // otherwise: where each one lies
uint weight_rows[WEIGHT_LOADS];
uint m_first, n_first;  // of the workgroup's tile of y
uint K_tiles;
uint first_tile;  // along K; the others follow, and those before it come last

// WEIGHTS_IN_TILES: blocks of 64 rows and 64 bytes of K, one after the other along K, then those of the next
// 64 rows; zero behind the matrix. The chunks of a block lie in the order in which threads take them, so that
// eight threads read one line of 128 bytes.
const uint BLOCK_ROWS = 64, BLOCK_CHUNKS = 256;
uint block_row(uint chunk) { return chunk / 8 + chunk / 4 % 2 * 32; }
// Chunks from the blocks of 64 rows to those of the next ones.
uint block_row_chunks() { return (K_blocks + 3) / 4 * BLOCK_CHUNKS; }

// False if the workgroup has nothing to do. Workgroups that run together compute a band of RASTER tiles of
// rows, or of columns: the caches serve the band's x, or its weights, again and again while the other matrix
// passes by.
bool choose_tile() {
  const uint RASTER = 8;
  // Workgroups start ROTATION tiles apart, so as not to read the same all at once, but no further than this
  // from each other: else what they share leaves the second cache in between. 8192^3 took 4 % longer without
  // this limit, 8192x16384x4096 11 %.
  const uint START_TILES = 64;
  uint tiles_m = (M + TILE_M - 1) / TILE_M, tiles_n = (N + TILE_N - 1) / TILE_N;
  uint index = workgroup_index();
  if (index >= tiles_m * tiles_n) return false;
  uint across = BANDS_OF_COLUMNS ? tiles_n : tiles_m, along = BANDS_OF_COLUMNS ? tiles_m : tiles_n;
  uint band = index / (RASTER * along), in_band = index % (RASTER * along);
  uint band_tiles = min(across - band * RASTER, RASTER);
  across = band * RASTER + in_band % band_tiles;
  along = in_band / band_tiles;
  m_first = (BANDS_OF_COLUMNS ? along : across) * TILE_M;
  n_first = (BANDS_OF_COLUMNS ? across : along) * TILE_N;
  K_tiles = (K_blocks + CHUNKS - 1) / CHUNKS;
  first_tile = index * ROTATION % min(K_tiles, START_TILES);
  return true;
}

// The row of a tile's item. Eight threads that store together shall meet all banks: with rows of 4 + 1 chunks
// that takes the four chunks of two rows whose places are four apart.
uint x_row(uint item) {
  return CHUNKS == 4 ? item / 32 * 8 + item / 8 % 4 + item / 4 % 2 * 4 : item / CHUNKS;
}
uint weight_row(uint item) {
  if (!OWN_SUMS || CHUNKS != 4) return x_row(item);
  return item / BLOCK_CHUNKS * BLOCK_ROWS + block_row(item % BLOCK_CHUNKS);
}
// How much farther down a thread's item i is than its first one.
uint x_row_step(uint i) { return i * (THREADS / CHUNKS); }
uint weight_row_step(uint i) {
  uint items = i * THREADS;
  if (!OWN_SUMS || CHUNKS != 4) return items / CHUNKS;
  return items / BLOCK_CHUNKS * BLOCK_ROWS + items % BLOCK_CHUNKS / 8;
}

bool has_x_item(uint i) { return X_LOADS_FULL || gl_LocalInvocationID.x + i * THREADS < TILE_M * CHUNKS; }
bool has_weight_item(uint i) {
  return WEIGHT_LOADS_FULL || gl_LocalInvocationID.x + i * THREADS < TILE_N * CHUNKS;
}

// Where a thread's chunk i of the first tile lies.
uint x_start(uint i) {
  uint thread = gl_LocalInvocationID.x;
  return min(m_first + x_row(thread) + x_row_step(i), M - 1) * K_blocks + thread % CHUNKS;
}
uint weight_start(uint i) {
  uint thread = gl_LocalInvocationID.x;
  if (WEIGHTS_IN_TILES) {
    uint item = thread + i * THREADS;
    uint block = min(n_first / BLOCK_ROWS + item / BLOCK_CHUNKS, (N - 1) / BLOCK_ROWS);
    return block * block_row_chunks() + item % BLOCK_CHUNKS;
  }
  return min(n_first + weight_row(thread) + weight_row_step(i), N - 1) * K_blocks + thread % CHUNKS;
}

void find_rows() {
  x_first = x_start(0);
  weight_first = weight_start(0);
  if (INSIDE) return;
  [[unroll]] for (uint i = 0; i < X_LOADS; ++i)
    x_rows[i] = x_start(i);
  [[unroll]] for (uint i = 0; i < WEIGHT_LOADS; ++i)
    weight_rows[i] = weight_start(i);
}

ivec4 load_x(uint index) { return STREAMED ? x_streamed[index] : x[index]; }
ivec4 load_weight(uint index) { return STREAMED ? weights_streamed[index] : weights[index]; }

uint weight_index(uint i, uint first_chunk) {
  // Behind K any weights will do: they meet zero x.
  if (WEIGHTS_IN_TILES) {
    if (K_TAIL) first_chunk = min(first_chunk, (K_blocks - 1) / CHUNKS * CHUNKS);
    uint items = i * THREADS;
    uint step = items / BLOCK_CHUNKS * block_row_chunks() + items % BLOCK_CHUNKS;
    return (INSIDE ? weight_first + step : weight_rows[i]) + first_chunk * BLOCK_ROWS;
  }
  uint chunk = gl_LocalInvocationID.x % CHUNKS;
  if (K_TAIL) first_chunk = min(first_chunk + chunk, K_blocks - 1) - chunk;
  return (INSIDE ? weight_first + weight_row_step(i) * K_blocks : weight_rows[i]) + first_chunk;
}

// One of `parts` parts of the loads of the tile that comes `turn`-th.
void read_tile_part(uint turn, uint part, uint parts) {
  const uint LOADS = X_LOADS + WEIGHT_LOADS;
  uint tile = turn + first_tile;
  if (ROTATION > 0 && tile >= K_tiles) tile -= K_tiles;
  uint first_chunk = tile * CHUNKS;
  [[unroll]] for (uint load = part * LOADS / parts; load < (part + 1) * LOADS / parts; ++load) {
    if (load < X_LOADS) {
      if (!has_x_item(load)) continue;
      uint index = (INSIDE ? x_first + x_row_step(load) * K_blocks : x_rows[load]) + first_chunk;
      bool behind = K_TAIL && first_chunk + gl_LocalInvocationID.x % CHUNKS >= K_blocks;
      x_registers[load] = behind ? ivec4(0) : load_x(index);
    } else {
      uint i = load - X_LOADS;
      if (has_weight_item(i)) weight_registers[i] = load_weight(weight_index(i, first_chunk));
    }
  }
}

void read_tile(uint turn) { read_tile_part(turn, 0, 1); }

void write_tile() {
  uint thread = gl_LocalInvocationID.x;
  uint x_place = x_row(thread) * ROW_CHUNKS + thread % CHUNKS;
  uint weight_place = (TILE_M + WEIGHT_SLOT(weight_row(thread))) * ROW_CHUNKS + thread % CHUNKS;
  [[unroll]] for (uint i = 0; i < X_LOADS; ++i) {
    if (has_x_item(i)) tiles[x_place + x_row_step(i) * ROW_CHUNKS] = x_registers[i];
  }
  [[unroll]] for (uint i = 0; i < WEIGHT_LOADS; ++i) {
    if (has_weight_item(i))
      tiles[weight_place + WEIGHT_SLOT(weight_row_step(i)) * ROW_CHUNKS] = weight_registers[i];
  }
}
