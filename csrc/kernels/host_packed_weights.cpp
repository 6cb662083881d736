#include "kernels/host_packed_weights.h"

#include <algorithm>
#include <cstring>

#include "kernels/host_gemm_variant.h"
#include "kernels/layout.h"

namespace q8ta::kernels {
namespace {

constexpr int64_t kStepBytes = kPanelColumns * kBytesInStep;
constexpr int64_t kLineBytes = 64;

/// Up to kLineBytes bytes of one row, to their column of a panel; whole steps, the rest of the last being 0.
/// Returns their sum.
int32_t scatter(const int8_t* row, int64_t count, int8_t* column) {
  int8_t line[kLineBytes] = {};
  std::memcpy(line, row, static_cast<size_t>(count));
  for (int64_t k = 0; k < count; k += kBytesInStep) {
    std::memcpy(column + k / kBytesInStep * kStepBytes, line + k, kBytesInStep);
  }
  int32_t sum = 0;
  for (const int8_t byte : line) sum += byte;
  return sum;
}

}  // namespace

HostPackedWeights::HostPackedWeights(int64_t N, int64_t K)
    : N_(N),
      K_(K),
      lines_(std::make_unique_for_overwrite<CacheLine[]>(
          static_cast<size_t>((panel_count() * panel_bytes() + kReadBehindPanels) / kLineBytes))),
      sums_(std::make_unique_for_overwrite<int32_t[]>(static_cast<size_t>(panel_count() * kPanelColumns))) {
  std::fill_n(lines_[0].bytes + panel_count() * panel_bytes(), kReadBehindPanels, int8_t{0});
}

int64_t HostPackedWeights::panel_count() const { return ceil_div(N_, kPanelColumns); }

int64_t HostPackedWeights::panel_bytes() const { return ceil_div(K_, kBytesInStep) * kStepBytes; }

size_t HostPackedWeights::bytes() const {
  const int64_t panel = panel_bytes() + kPanelColumns * static_cast<int64_t>(sizeof(int32_t));
  return static_cast<size_t>(panel_count() * panel + kReadBehindPanels);
}

void HostPackedWeights::pack(const int8_t* weights, int64_t row_stride, int64_t column_stride, int64_t first,
                             int64_t end) {
  for (int64_t panel = first; panel < end; ++panel) {
    int8_t* out = lines_[0].bytes + panel * panel_bytes();
    int32_t* sums = sums_.get() + panel * kPanelColumns;
    std::fill_n(sums, kPanelColumns, 0);
    // A line of each row after the other: rows a multiple of 4 KiB apart push each other out of the cache.
    for (int64_t k = 0; k < K_; k += kLineBytes) {
      const int64_t count = std::min(kLineBytes, K_ - k);
      for (int64_t column = 0; column < kPanelColumns; ++column) {
        const int64_t n = panel * kPanelColumns + column;
        int8_t line[kLineBytes] = {};
        const int8_t* source = line;
        if (n < N_ && column_stride == 1) {
          source = weights + n * row_stride + k;
        } else if (n < N_) {
          for (int64_t i = 0; i < count; ++i) line[i] = weights[n * row_stride + (k + i) * column_stride];
        }
        sums[column] += scatter(source, count, out + k / kBytesInStep * kStepBytes + column * kBytesInStep);
      }
    }
  }
}

}  // namespace q8ta::kernels
