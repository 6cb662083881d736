#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/host_gemm_variant.h"

namespace q8ta::kernels {

/// How a product is cut: blocks of rows times parts of the output channels.
struct HostDivision {
  int64_t block_rows;
  int64_t blocks;
  int64_t parts;    ///< of the groups of columns, in each block
  int64_t workers;  ///< that compute
};

/// One product, computed by workers that may run at the same time or one after the other. Each copies the
/// rows of x that it multiplies for itself: what another core has just written is slow to read. On 16 threads
/// of a Xeon with AMX 512 rows of 2048x2048 took 521 us with one copy that all wrote and all read, and 179
/// so.
class HostProduct {
 public:
  HostProduct(const HostPath& path, const HostGemm& gemm, int64_t threads);

  int64_t workers() const { return division_.workers; }

  /// What worker 0 .. workers() - 1 does: its own share, shares that nobody has begun, and then what is left
  /// of the others'. When all workers have returned, y is complete.
  void work(int64_t worker);

 private:
  /// Some rows and some groups of columns. Workers take the groups one by one: some threads are slower than
  /// others on a machine that has something else to do. On a cache line of its own.
  struct alignas(64) Share {
    int64_t first_row;
    int64_t end_row;
    int64_t end_group;
    std::atomic<int64_t> next_group;
  };

  /// The product of the rows that a worker has copied, `first_row` and on.
  struct Copied {
    HostGemm gemm;
    int64_t first_row;
  };

  /// Tiles of AMX whose rows cross cache lines are slow to load.
  struct alignas(64) CacheLine {
    uint8_t bytes[64];
  };

  Share& share(int64_t index) { return shares_[static_cast<size_t>(index % share_count_)]; }
  void multiply(Copied& rows, Share& share);
  void copy(Copied& rows, const Share& share);

  const HostPath& path_;
  const HostGemm& gemm_;
  int64_t row_bytes_;
  HostDivision division_;
  int64_t share_count_;
  std::vector<Share> shares_;
  std::atomic<int64_t> next_share_;
  int64_t lines_of_worker_;
  std::unique_ptr<CacheLine[]> lines_;
  std::unique_ptr<int32_t[]> compensations_;
};

}  // namespace q8ta::kernels
