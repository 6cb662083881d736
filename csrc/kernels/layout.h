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

/// int32 words that the matrices have in a layout (4H4W or 4W).
constexpr int64_t packed_words(const Matrices& matrices, Layout layout) {
  const int64_t words_per_row = ceil_div(matrices.columns, 4);
  const int64_t rows = layout == Layout::packed_int8_4h4w ? ceil_div(matrices.rows, 4) * 4 : matrices.rows;
  return matrices.count * rows * words_per_row;
}

/// The most columns of x that an int32 accumulator can take: 65,793 * 255 * 128 < 2^31.
inline constexpr int64_t kMaxK = 65'793;

}  // namespace q8ta::kernels
