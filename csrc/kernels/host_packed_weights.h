#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace q8ta::kernels {

/// Weights [N, K] in panels (host_gemm_variant.h), and the sum of each row.
class HostPackedWeights {
 public:
  /// Nothing is packed yet.
  HostPackedWeights(int64_t N, int64_t K);

  int64_t panel_count() const;
  int64_t panel_bytes() const;

  /// Packs panels first .. end - 1. Disjoint ranges may be packed at once. Strides are in elements.
  void pack(const int8_t* weights, int64_t row_stride, int64_t column_stride, int64_t first, int64_t end);

  const int8_t* panels() const { return lines_[0].bytes; }
  const int32_t* sums() const { return sums_.get(); }
  size_t bytes() const;

 private:
  struct alignas(64) CacheLine {
    int8_t bytes[64];
  };

  int64_t N_, K_;
  std::unique_ptr<CacheLine[]> lines_;
  std::unique_ptr<int32_t[]> sums_;
};

}  // namespace q8ta::kernels
