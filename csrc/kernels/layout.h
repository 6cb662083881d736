#pragma once

#include <cstdint>

namespace q8ta::kernels {

/// Memory layouts with ids that files carry: never renumbered.
enum class Layout : int64_t {
  packed_int8_4w4c = 3,  ///< reserved for convolution
  packed_int8_4h4w = 4,  ///< blocks of 4 rows x 4 columns
  packed_int8_4w = 5,    ///< rows of words of 4 columns
};

constexpr int64_t ceil_div(int64_t value, int64_t divisor) { return (value + divisor - 1) / divisor; }

/// Bytes from one row of x or of the weights to the next on a device: K rounded up, so that every row can be
/// read in loads of 16 bytes.
constexpr int64_t padded_row_bytes(int64_t K) { return ceil_div(K, 16) * 16; }

/// int8 matrices that follow each other in memory, row-major.
struct Matrices {
  int64_t count = 1;
  int64_t rows = 0;
  int64_t columns = 0;

  int64_t bytes() const { return count * rows * columns; }
};

/// Orders that shaders/pack.comp writes: the two public layouts and what the kernels read.
enum class PackOrder {
  rows_4w,      ///< PACKED_INT8_4W
  blocks_4h4w,  ///< PACKED_INT8_4H4W
  padded_rows,  ///< rows padded to 16 bytes: PACKED_INT8_4W of a matrix whose K is rounded up to 16
  tiles,        ///< blocks of 64 rows x 64 bytes, see WEIGHTS_IN_TILES in shaders/include/linear_tiles.glsl
};

constexpr PackOrder pack_order(Layout layout) {
  return layout == Layout::packed_int8_4h4w ? PackOrder::blocks_4h4w : PackOrder::rows_4w;
}

/// Sides of a block of PackOrder::tiles, rows and bytes.
inline constexpr int64_t kTileSide = 64;

/// int32 words that a row takes, padding included.
constexpr int64_t packed_row_words(int64_t columns, PackOrder order) {
  switch (order) {
    case PackOrder::padded_rows:
      return padded_row_bytes(columns) / 4;
    case PackOrder::tiles:
      return ceil_div(columns, kTileSide) * (kTileSide / 4);
    default:
      return ceil_div(columns, 4);
  }
}

/// int32 words of the matrices in that order. Those of a matrix's first rows are where the next row starts,
/// if they are whole blocks.
constexpr int64_t packed_words(const Matrices& matrices, PackOrder order) {
  int64_t rows = matrices.rows;
  if (order == PackOrder::blocks_4h4w) rows = ceil_div(rows, 4) * 4;
  if (order == PackOrder::tiles) rows = ceil_div(rows, kTileSide) * kTileSide;
  return matrices.count * rows * packed_row_words(matrices.columns, order);
}

/// int32 words that the matrices have in a layout (4H4W or 4W).
constexpr int64_t packed_words(const Matrices& matrices, Layout layout) {
  return packed_words(matrices, pack_order(layout));
}

/// The most columns of x that an int32 accumulator can take: 65,793 * 255 * 128 < 2^31.
inline constexpr int64_t kMaxK = 65'793;

}  // namespace q8ta::kernels
