// The host kernel's loops, for any instruction set. A file that includes this is compiled for one, with
// -ffp-contract=off, and says in a class of its own, in an unnamed namespace (Isa below), what a vector is:
//
//   Vector                     int32 sums
//   kColumns                   output channels in a Vector of tile sums
//   kVectors, kRows            size of a tile; kFewVectors, kFewRows: of one for few rows, which is wider
//   PreparedX                  element type of prepared x; prepared(int8_t) makes it
//   kRowStep                   k's in a step along a row of weights
//   zero()                     opaque to the compiler: GCC 12 keeps equal values in one register, and then
//                              copies a tile's sums in every step
//   weights(p)                 kColumns * 4 bytes of a panel
//   broadcast(p)               4 k's of x for each column
//   dot(sums, x, weights)      + x * weights
//   store(p, sums, start)      sums of kColumns columns + what lies at start
//   dot_along_row(sums, x, p)  + kRowStep products of raw x (as RowX) and weights
//   RowX                       element type of x there
//   kShifted                   whether prepared x and, along a row, weights count 128 too much
//   reduce(sums[4], p)         4 horizontal sums
//   Floats                     vectors of the epilogue (host_epilogue.h)
#pragma once

#include "kernels/host_epilogue.h"
#include "kernels/host_gemm_variant.h"

namespace q8ta::kernels {
namespace {

constexpr int64_t kLineBytes = 64;
constexpr int64_t kRowsOfWeights = 4;  // at a time: as many streams, and their sums hide the latency

inline void prefetch(const void* address) { __builtin_prefetch(address, 0, 3); }

inline int64_t smaller(int64_t a, int64_t b) { return b < a ? b : a; }
inline int64_t rounded_up(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

template <typename Element>
inline void zero_fill(Element* begin, const Element* end) {
  while (begin != end) *begin++ = 0;
}

/// Sums of `rows` rows and `vectors` vectors of columns, `weights` being the first column's place in a panel.
template <typename Isa, int rows, int vectors>
void multiply_tile(const uint8_t* x, int64_t x_stride, const int8_t* weights, int64_t panel_bytes,
                   int64_t steps, const int32_t* start, int32_t* sums) {
  constexpr int64_t kPrefetchBytes = 4096;
  constexpr int64_t kVectorsInPanel = kPanelColumns / Isa::kColumns;
  constexpr int64_t kXBytes = kBytesInStep * sizeof(typename Isa::PreparedX);
  typename Isa::Vector tile[rows][vectors];
#pragma GCC unroll 16
  for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < vectors; ++v) tile[r][v] = Isa::zero();
  }
  for (int64_t step = 0; step < steps; ++step) {
    decltype(Isa::weights(weights)) columns[vectors];
#pragma GCC unroll 8
    for (int v = 0; v < vectors; ++v) {
      const int8_t* at = weights + (v / kVectorsInPanel) * panel_bytes +
                         (v % kVectorsInPanel) * Isa::kColumns * kBytesInStep;
      columns[v] = Isa::weights(at);
      if (v * Isa::kColumns % 16 == 0) prefetch(at + kPrefetchBytes);
    }
#pragma GCC unroll 16
    for (int r = 0; r < rows; ++r) {
      const auto values = Isa::broadcast(x + r * x_stride + step * kXBytes);
#pragma GCC unroll 8
      for (int v = 0; v < vectors; ++v) tile[r][v] = Isa::dot(tile[r][v], values, columns[v]);
    }
    weights += kPanelColumns * kBytesInStep;
  }
#pragma GCC unroll 16
  for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < vectors; ++v) {
      Isa::store(sums + r * kGroupColumns + v * Isa::kColumns, tile[r][v], start + v * Isa::kColumns);
    }
  }
}

using MultiplyTile = void (*)(const uint8_t*, int64_t, const int8_t*, int64_t, int64_t, const int32_t*,
                              int32_t*);

/// multiply_tile of `count` rows, of at most `rows`.
template <typename Isa, int rows, int vectors>
MultiplyTile tile_of(int64_t count) {
  if constexpr (rows > 1) {
    if (count < rows) return tile_of<Isa, rows - 1, vectors>(count);
  }
  return &multiply_tile<Isa, rows, vectors>;
}

/// Fetches the parameters of a group's output channels, while there is something else to do.
inline void prefetch_channels(const HostGemm& gemm, int64_t group) {
  const int64_t first = group * kGroupColumns;
  const int64_t end = smaller(first + kGroupColumns, gemm.problem.N);
  for (int64_t n = first; n < end; n += kLineBytes / 4) {
    prefetch(gemm.channels.weight_sums + n);
    prefetch(gemm.channels.weight_scales + n);
    if (gemm.channels.bias != nullptr) prefetch(gemm.channels.bias + n);
  }
}

/// How a group's columns become y: the parameters of its output channels, read once.
template <typename Floats>
class Finish {
 public:
  Finish(const HostGemm& gemm, int64_t first_column, int64_t columns)
      : gemm_(gemm), first_column_(first_column), columns_(columns) {
    // Unsigned, so that sums which are not those of the weights wrap as they do on the GPU.
    const auto zero_point = static_cast<uint32_t>(gemm.problem.quantization.input_zero_point);
    const float input_scale = gemm.problem.quantization.input_scale;
    zero_fill(starts, starts + kGroupColumns);
    int32_t invalid = 0;
    for (int64_t i = 0; i < columns; ++i) {
      const int64_t n = first_column + i;
      starts[i] = static_cast<int32_t>(0 - zero_point * static_cast<uint32_t>(gemm.channels.weight_sums[n]));
      const float scale = gemm.channels.weight_scales[n];
      multipliers_[i] = input_scale * scale;
      invalid += static_cast<int32_t>(!((scale > 0.0F) & (scale <= __FLT_MAX__)));
    }
    if (invalid != 0) __atomic_store_n(gemm.invalid_scale, true, __ATOMIC_RELAXED);
    if (gemm.channels.bias != nullptr) {
      for (int64_t i = 0; i < columns; ++i) biases_[i] = gemm.channels.bias[first_column + i];
    }
  }

  /// What every sum starts with: -input_zero_point * weight_sums.
  alignas(64) int32_t starts[kGroupColumns];

  /// Fetches the lines of y that write() is going to fill, while there is something else to do.
  void prefetch_y(int64_t first_row, int64_t rows) const {
    for (int64_t r = 0; r < rows; ++r) {
      uint8_t* y = row_of_y(first_row + r);
      for (int64_t byte = 0; byte < columns_ * element_bytes() + kLineBytes - 1; byte += kLineBytes) {
        __builtin_prefetch(y + byte, 1, 3);
      }
    }
  }

  void write(const int32_t* sums, int64_t first_row, int64_t rows) const {
    for (int64_t r = 0; r < rows; ++r) {
      const EpilogueInputs inputs{sums + r * kGroupColumns, multipliers_, biases_};
      void* y = row_of_y(first_row + r);
      if (columns_ == kGroupColumns) {
        host_epilogue<Floats>(gemm_.problem, inputs, kGroupColumns, y);  // a constant: no remainder
      } else {
        host_epilogue<Floats>(gemm_.problem, inputs, columns_, y);
      }
    }
  }

 private:
  int64_t element_bytes() const { return gemm_.problem.float_output ? sizeof(float) : sizeof(int8_t); }
  uint8_t* row_of_y(int64_t m) const {
    const int64_t element = m * int64_t{gemm_.problem.N} + first_column_;
    return static_cast<uint8_t*>(gemm_.y) + element * element_bytes();
  }

  const HostGemm& gemm_;
  int64_t first_column_, columns_;
  alignas(64) float multipliers_[kGroupColumns];
  alignas(64) float biases_[kGroupColumns];
};

template <typename Isa>
int64_t packed_row_bytes(int64_t K) {
  return rounded_up(K, kBytesInStep) * static_cast<int64_t>(sizeof(typename Isa::PreparedX));
}

template <typename Isa>
void prepare_packed(const HostGemm& gemm, int64_t first_row, int64_t end_row) {
  using X = typename Isa::PreparedX;
  const int64_t K = gemm.problem.K;
  for (int64_t m = first_row; m < end_row; ++m) {
    const int8_t* __restrict row = gemm.x + m * K;
    auto* __restrict out = reinterpret_cast<X*>(gemm.prepared_x + m * gemm.prepared_stride);
    for (int64_t k = 0; k < K; ++k) out[k] = Isa::prepared(row[k]);
    zero_fill(out + K, out + gemm.prepared_stride / static_cast<int64_t>(sizeof(X)));
  }
}

template <typename Isa>
void multiply_packed(const HostGemm& gemm, int64_t first_row, int64_t end_row, int64_t group) {
  const int64_t first_column = group * kGroupColumns;
  const int64_t columns = smaller(kGroupColumns, int64_t{gemm.problem.N} - first_column);
  const int64_t steps = rounded_up(gemm.problem.K, kBytesInStep) / kBytesInStep;
  prefetch_channels(gemm, group + 1);
  Finish<typename Isa::Floats> finish(gemm, first_column, columns);
  if (Isa::kShifted) {
    for (int64_t i = 0; i < columns; ++i) {
      finish.starts[i] =
          static_cast<int32_t>(static_cast<uint32_t>(finish.starts[i]) -
                               128U * static_cast<uint32_t>(gemm.column_sums[first_column + i]));
    }
  }
  const int8_t* panels = gemm.weights + first_column / kPanelColumns * gemm.weight_stride;
  const int64_t padded_columns = rounded_up(columns, kPanelColumns);
  alignas(64) int32_t sums[kGroupRows * kGroupColumns];
  const auto fill = [&](MultiplyTile tile, int64_t tile_columns, int64_t m) {
    for (int64_t c = 0; c < padded_columns; c += tile_columns) {
      const int8_t* weights =
          panels + c / kPanelColumns * gemm.weight_stride + c % kPanelColumns * kBytesInStep;
      tile(gemm.prepared_x + m * gemm.prepared_stride, gemm.prepared_stride, weights, gemm.weight_stride,
           steps, finish.starts + c, sums + c);
    }
  };
  constexpr int64_t kWide = Isa::kFewVectors * Isa::kColumns;
  const int64_t rows = end_row - first_row;
  const bool few = rows <= Isa::kFewRows && padded_columns % kWide == 0;
  const int64_t tiles = (rows + Isa::kRows - 1) / Isa::kRows;
  int64_t m = first_row;
  for (int64_t t = 0; t < tiles; ++t) {
    const int64_t count = (end_row - m) / (tiles - t);  // tiles of nearly equal heights
    finish.prefetch_y(m, count);
    if (few) {
      fill(tile_of<Isa, Isa::kFewRows, Isa::kFewVectors>(count), kWide, m);
    } else {
      fill(tile_of<Isa, Isa::kRows, Isa::kVectors>(count), Isa::kVectors * Isa::kColumns, m);
    }
    finish.write(sums, m, count);
    m += count;
  }
}

template <typename Isa>
int64_t plain_row_bytes(int64_t K) {
  return rounded_up(K, Isa::kRowStep) * static_cast<int64_t>(sizeof(typename Isa::RowX));
}

template <typename Isa>
void prepare_rows(const HostGemm& gemm, int64_t first_row, int64_t end_row) {
  using X = typename Isa::RowX;
  const int64_t K = gemm.problem.K;
  for (int64_t m = first_row; m < end_row; ++m) {
    const int8_t* __restrict row = gemm.x + m * K;
    auto* __restrict out = reinterpret_cast<X*>(gemm.prepared_x + m * gemm.prepared_stride);
    for (int64_t k = 0; k < K; ++k) out[k] = row[k];
    zero_fill(out + K, out + gemm.prepared_stride / static_cast<int64_t>(sizeof(X)));
    if (Isa::kShifted) {
      int32_t sum = 0;
      for (int64_t k = 0; k < K; ++k) sum += row[k];
      gemm.x_compensations[m] = 128 * sum;
    }
  }
}

/// Sums of one row of x and 4 rows of weights over their first K elements. Whole steps are read: what lies
/// behind K is multiplied by the zeros behind x.
template <typename Isa>
inline void multiply_steps(const typename Isa::RowX* x, const int8_t* weights, int64_t stride, int64_t K,
                           int64_t prefetch_bytes, int32_t* sums) {
  typename Isa::Vector partial[kRowsOfWeights];
#pragma GCC unroll 4
  for (int64_t i = 0; i < kRowsOfWeights; ++i) partial[i] = Isa::zero();
  for (int64_t k = 0; k < K; k += Isa::kRowStep) {
#pragma GCC unroll 4
    for (int64_t i = 0; i < kRowsOfWeights; ++i) {
      prefetch(weights + i * stride + k + prefetch_bytes);
      partial[i] = Isa::dot_along_row(partial[i], x + k, weights + i * stride + k);
    }
  }
  Isa::reduce(partial, sums);
}

/// The same where no more than `readable` bytes of a row may be read.
template <typename Isa>
__attribute__((noinline)) void multiply_last_steps(const typename Isa::RowX* x, const int8_t* weights,
                                                   int64_t stride, int64_t K, int64_t readable,
                                                   int32_t* sums) {
  const int64_t whole = readable / Isa::kRowStep * Isa::kRowStep;
  multiply_steps<Isa>(x, weights, stride, whole, 0, sums);
  int8_t rest[kRowsOfWeights * Isa::kRowStep] = {};
  for (int64_t i = 0; i < kRowsOfWeights; ++i) {
    __builtin_memcpy(rest + i * Isa::kRowStep, weights + i * stride + whole, static_cast<size_t>(K - whole));
  }
  int32_t more[kRowsOfWeights];
  multiply_steps<Isa>(x + whole, rest, Isa::kRowStep, Isa::kRowStep, 0, more);
  for (int64_t i = 0; i < kRowsOfWeights; ++i) {
    sums[i] = static_cast<int32_t>(static_cast<uint32_t>(sums[i]) + static_cast<uint32_t>(more[i]));
  }
}

template <typename Isa>
void multiply_rows(const HostGemm& gemm, int64_t first_row, int64_t end_row, int64_t group) {
  const int64_t K = gemm.problem.K;
  const int64_t padded_K = rounded_up(K, Isa::kRowStep);
  const int64_t stride = gemm.weight_stride;
  const int64_t first_column = group * kGroupColumns;
  const int64_t columns = smaller(kGroupColumns, int64_t{gemm.problem.N} - first_column);
  prefetch_channels(gemm, group + 1);
  const Finish<typename Isa::Floats> finish(gemm, first_column, columns);
  alignas(64) int32_t sums[kGroupRows * kGroupColumns];
  for (int64_t m = first_row; m < end_row; m += kGroupRows) {
    const int64_t rows = smaller(kGroupRows, end_row - m);
    finish.prefetch_y(m, rows);
    const auto multiply = [&](int64_t c, int64_t from_row_to_row) {
      const int8_t* weights = gemm.weights + (first_column + c) * stride;
      const int64_t readable = gemm.weights_end - weights - (kRowsOfWeights - 1) * from_row_to_row;
      for (int64_t r = 0; r < rows; ++r) {
        const uint8_t* row = gemm.prepared_x + (m + r) * gemm.prepared_stride;
        const auto* x = reinterpret_cast<const typename Isa::RowX*>(row);
        int32_t* out = sums + r * kGroupColumns + c;
        if (readable >= padded_K) {
          multiply_steps<Isa>(x, weights, from_row_to_row, K, kRowsOfWeights * stride, out);
        } else {
          multiply_last_steps<Isa>(x, weights, from_row_to_row, K, readable, out);
        }
      }
    };
    if (columns < kRowsOfWeights) {
      for (int64_t c = 0; c < columns; ++c) multiply(c, 0);  // the same row four times
    } else {
      for (int64_t c = 0; c < columns; c += kRowsOfWeights) {
        multiply(smaller(c, columns - kRowsOfWeights), stride);  // the last four may overlap
      }
    }
    for (int64_t r = 0; r < rows; ++r) {
      const uint32_t compensation = Isa::kShifted ? static_cast<uint32_t>(gemm.x_compensations[m + r]) : 0;
      int32_t* out = sums + r * kGroupColumns;
      for (int64_t i = 0; i < columns; ++i) {
        out[i] = static_cast<int32_t>(static_cast<uint32_t>(out[i]) +
                                      static_cast<uint32_t>(finish.starts[i]) - compensation);
      }
    }
    finish.write(sums, m, rows);
  }
}

template <typename Isa>
constexpr HostPath rows_path() {
  return {&plain_row_bytes<Isa>, &prepare_rows<Isa>, &multiply_rows<Isa>};
}

template <typename Isa>
constexpr HostPath packed_path() {
  return {&packed_row_bytes<Isa>, &prepare_packed<Isa>, &multiply_packed<Isa>};
}

}  // namespace
}  // namespace q8ta::kernels
