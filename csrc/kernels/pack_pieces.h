#pragma once

#include <algorithm>

#include "kernels/layout.h"

namespace q8ta::kernels {

/// Row-major bytes of a piece: what is packed at a time where staging memory or bindings bound it.
inline constexpr int64_t kPieceBytes = int64_t{16} << 20;

/// Calls process(piece, first row-major byte, first packed word) for pieces of bounded size: several whole
/// matrices, or some rows (a multiple of 4) of one.
template <typename Process>
void for_each_piece(const Matrices& matrices, Layout layout, Process process) {
  const int64_t matrix_bytes = matrices.rows * matrices.columns;
  const int64_t matrix_words = packed_words({1, matrices.rows, matrices.columns}, layout);
  if (matrix_bytes <= kPieceBytes) {
    const int64_t group = std::max<int64_t>(kPieceBytes / matrix_bytes, 1);
    for (int64_t first = 0; first < matrices.count; first += group) {
      const Matrices piece{std::min(group, matrices.count - first), matrices.rows, matrices.columns};
      process(piece, first * matrix_bytes, first * matrix_words);
    }
    return;
  }
  const int64_t rows = std::max<int64_t>(kPieceBytes / matrices.columns / 4 * 4, 4);
  for (int64_t matrix = 0; matrix < matrices.count; ++matrix) {
    for (int64_t first = 0; first < matrices.rows; first += rows) {
      const Matrices piece{1, std::min(rows, matrices.rows - first), matrices.columns};
      process(piece, matrix * matrix_bytes + first * matrices.columns,
              matrix * matrix_words + packed_words({1, first, matrices.columns}, layout));
    }
  }
}

}  // namespace q8ta::kernels
