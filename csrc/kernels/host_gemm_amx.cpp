// Compiled for AMX and AVX-512; called only where the processor has them and the system lets this process use
// AMX's tiles.
#include "kernels/host_gemm_variant.h"

#if defined(__AMX_INT8__) && defined(__AVX512VNNI__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kernels/host_gemm_avx512.h"

namespace q8ta::kernels {
namespace {

// A tile is 16 rows of 64 bytes: of x 64 k's of 16 rows, of a panel 64 k's of 16 columns, of sums 16 x 16.
constexpr int64_t kTileRows = 16;
constexpr int64_t kTileBytes = 64;
constexpr int64_t kTileColumns = kTileBytes / static_cast<int64_t>(sizeof(int32_t));
constexpr int64_t kBlockRows = 2 * kTileRows;
constexpr int64_t kStepBytes = kPanelColumns * kBytesInStep;  // from row to row of a panel's tile
constexpr int64_t kTileSteps = kTileBytes / kBytesInStep;
static_assert(kPanelColumns == 2 * kTileColumns);
static_assert(kReadBehindPanels >= (kTileSteps - 1) * kStepBytes);

/// What LDTILECFG reads.
struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};

  void set(int tile, int64_t row_count) {
    rows[tile] = static_cast<uint8_t>(row_count);
    row_bytes[tile] = row_count > 0 ? kTileBytes : 0;
  }
};
static_assert(sizeof(TileConfig) == 64);

// Tiles by number, as the intrinsics want them: sums of upper and lower rows and left and right columns.
#define Q8TA_UPPER_LEFT 0
#define Q8TA_UPPER_RIGHT 1
#define Q8TA_LOWER_LEFT 2
#define Q8TA_LOWER_RIGHT 3
#define Q8TA_UPPER_X 4
#define Q8TA_LOWER_X 5
#define Q8TA_LEFT_WEIGHTS 6
#define Q8TA_RIGHT_WEIGHTS 7

/// Sets the tiles up for a block of `rows` rows of x, at most kBlockRows.
void configure(int64_t rows) {
  const int64_t upper = smaller(rows, kTileRows);
  TileConfig config;
  config.set(Q8TA_UPPER_LEFT, upper);
  config.set(Q8TA_UPPER_RIGHT, upper);
  config.set(Q8TA_UPPER_X, upper);
  config.set(Q8TA_LOWER_LEFT, rows - upper);
  config.set(Q8TA_LOWER_RIGHT, rows - upper);
  config.set(Q8TA_LOWER_X, rows - upper);
  config.set(Q8TA_LEFT_WEIGHTS, kTileRows);
  config.set(Q8TA_RIGHT_WEIGHTS, kTileRows);
  _tile_loadconfig(&config);
}

/// Rows for which AVX-512 is as fast. Microseconds on 16 threads of a Xeon, AMX / AVX-512, 2048x2048: 4 rows
/// 25 / 20, 8 rows 28 / 26 (with x not yet aligned), 16 rows 42 / 50, 32 rows 61 / 84, 512 rows 474 / 758.
constexpr int64_t kFewRows = 8;
bool has_few_rows(const HostGemm& gemm) { return gemm.M <= kFewRows; }

/// Rows of x that share a tile with row m.
int64_t rows_in_tile(const HostGemm& gemm, int64_t m) {
  return smaller(kTileRows, gemm.M - m / kTileRows * kTileRows);
}

int64_t prepared_row_bytes(int64_t K) { return rounded_up(K, kTileBytes); }

/// x tile by tile, each in one piece: rows a multiple of 4 KiB apart push each other out of the cache.
void prepare(const HostGemm& gemm, int64_t first_row, int64_t end_row) {
  if (has_few_rows(gemm)) return prepare_packed<Avx512Vnni>(gemm, first_row, end_row);
  const int64_t K = gemm.problem.K;
  const int64_t whole = K / kTileBytes * kTileBytes;
  for (int64_t m = first_row; m < end_row; ++m) {
    const int64_t row_in_tile = m % kTileRows;
    const int64_t tile_bytes = rows_in_tile(gemm, m) * kTileBytes;
    const int8_t* row = gemm.x + m * K;
    uint8_t* out = gemm.prepared_x + (m - row_in_tile) * gemm.prepared_stride + row_in_tile * kTileBytes;
    for (int64_t k = 0; k < whole; k += kTileBytes, out += tile_bytes) {
      _mm512_storeu_si512(out, _mm512_loadu_si512(row + k));
    }
    if (whole < K) {
      const __mmask64 rest = (uint64_t{1} << static_cast<uint64_t>(K - whole)) - 1;
      _mm512_storeu_si512(out, _mm512_maskz_loadu_epi8(rest, row + whole));
    }
  }
}

/// Sums of a block of rows, `x` being its first tile, and of one panel. Behind K, x is zero.
template <bool has_lower, bool fetches>
void multiply_panel(const uint8_t* x, int64_t x_tile_bytes, const uint8_t* lower_x,
                    int64_t lower_x_tile_bytes, const int8_t* panel, int64_t K, const int32_t* starts,
                    int32_t* sums) {
  constexpr int64_t kPrefetchBytes = 8192;
  constexpr auto kSumsStride = static_cast<int64_t>(sizeof(int32_t)) * kGroupColumns;
  // A stride of 0: every row starts with the same.
  _tile_loadd(Q8TA_UPPER_LEFT, starts, 0);
  _tile_loadd(Q8TA_UPPER_RIGHT, starts + kTileColumns, 0);
  if constexpr (has_lower) {
    _tile_loadd(Q8TA_LOWER_LEFT, starts, 0);
    _tile_loadd(Q8TA_LOWER_RIGHT, starts + kTileColumns, 0);
  }
  for (int64_t k = 0; k < K; k += kTileBytes) {
    if constexpr (fetches) {
#pragma GCC unroll 32
      for (int64_t byte = 0; byte < kTileSteps * kStepBytes; byte += kLineBytes) {
        prefetch(panel + kPrefetchBytes + byte);
      }
    }
    _tile_loadd(Q8TA_LEFT_WEIGHTS, panel, kStepBytes);
    _tile_loadd(Q8TA_UPPER_X, x, kTileBytes);
    _tile_loadd(Q8TA_RIGHT_WEIGHTS, panel + kTileBytes, kStepBytes);
    _tile_dpbssd(Q8TA_UPPER_LEFT, Q8TA_UPPER_X, Q8TA_LEFT_WEIGHTS);
    _tile_dpbssd(Q8TA_UPPER_RIGHT, Q8TA_UPPER_X, Q8TA_RIGHT_WEIGHTS);
    if constexpr (has_lower) {
      _tile_loadd(Q8TA_LOWER_X, lower_x, kTileBytes);
      _tile_dpbssd(Q8TA_LOWER_LEFT, Q8TA_LOWER_X, Q8TA_LEFT_WEIGHTS);
      _tile_dpbssd(Q8TA_LOWER_RIGHT, Q8TA_LOWER_X, Q8TA_RIGHT_WEIGHTS);
      lower_x += lower_x_tile_bytes;
    }
    x += x_tile_bytes;
    panel += kTileSteps * kStepBytes;
  }
  _tile_stored(Q8TA_UPPER_LEFT, sums, kSumsStride);
  _tile_stored(Q8TA_UPPER_RIGHT, sums + kTileColumns, kSumsStride);
  if constexpr (has_lower) {
    _tile_stored(Q8TA_LOWER_LEFT, sums + kTileRows * kGroupColumns, kSumsStride);
    _tile_stored(Q8TA_LOWER_RIGHT, sums + kTileRows * kGroupColumns + kTileColumns, kSumsStride);
  }
}

/// first_row is a multiple of kBlockRows.
void multiply(const HostGemm& gemm, int64_t first_row, int64_t end_row, int64_t group) {
  if (has_few_rows(gemm)) return multiply_packed<Avx512Vnni>(gemm, first_row, end_row, group);
  const int64_t first_column = group * kGroupColumns;
  const int64_t columns = smaller(kGroupColumns, int64_t{gemm.problem.N} - first_column);
  prefetch_channels(gemm, group + 1);
  const Finish<Floats512> finish(gemm, first_column, columns);
  alignas(64) int32_t sums[kBlockRows * kGroupColumns];
  int64_t configured = 0;
  for (int64_t m = first_row; m < end_row; m += kBlockRows) {
    const int64_t rows = smaller(kBlockRows, end_row - m);
    if (rows != configured) configure(configured = rows);
    finish.prefetch_y(m, rows);
    const bool has_lower = rows > kTileRows;
    const uint8_t* x = gemm.prepared_x + m * gemm.prepared_stride;
    const uint8_t* lower_x = x + kTileRows * gemm.prepared_stride;
    const int64_t tile_bytes = rows_in_tile(gemm, m) * kTileBytes;
    const int64_t lower_tile_bytes = rows_in_tile(gemm, m + kTileRows) * kTileBytes;
    for (int64_t c = 0; c < columns; c += kPanelColumns) {
      const int8_t* panel = gemm.weights + (first_column + c) / kPanelColumns * gemm.weight_stride;
      const auto one_panel = m > first_row
                                 ? (has_lower ? &multiply_panel<true, false> : &multiply_panel<false, false>)
                                 : (has_lower ? &multiply_panel<true, true> : &multiply_panel<false, true>);
      one_panel(x, tile_bytes, lower_x, lower_tile_bytes, panel, gemm.problem.K, finish.starts + c, sums + c);
    }
    finish.write(sums, m, rows);
  }
  _tile_release();
}

/// Whether the processor has AMX for int8, and the system saves tiles for this process; it must be asked.
bool runs_here() {
  constexpr unsigned kTileBit = 1U << 24U, kInt8Bit = 1U << 25U;  // of EDX, CPUID leaf 7
  constexpr long kRequestPermission = 0x1023, kTileData = 18;     // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (!has_avx512_vnni() || __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0) return false;
  if ((edx & kTileBit) == 0 || (edx & kInt8Bit) == 0) return false;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

constexpr HostVariant kVariant{
    "amx", &runs_here, rows_path<Avx512Vnni>(), {&prepared_row_bytes, &prepare, &multiply, kBlockRows}};

}  // namespace

const HostVariant* amx_variant() { return &kVariant; }

}  // namespace q8ta::kernels

#else

const q8ta::kernels::HostVariant* q8ta::kernels::amx_variant() { return nullptr; }

#endif
