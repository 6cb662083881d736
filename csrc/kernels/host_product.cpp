#include "kernels/host_product.h"

#include <algorithm>

#include "kernels/layout.h"

namespace q8ta::kernels {
namespace {

constexpr int64_t kBlockBytes = int64_t{1} << 20;    // of prepared x that stay in the L2 cache
constexpr int64_t kGrainBytes = int64_t{128} << 10;  // read from memory: worth waking a thread
constexpr int64_t kRowsLikeReading = 8;              // so many rows cost as much again as reading the weights
constexpr int64_t kCopyLikeReading = 4;              // copying a byte of x, so many of weights; measured
constexpr int64_t kGroupsWorthCopying = 2;           // left of a share: worth a copy of its rows
/// Of weights that a worker's cache keeps from call to call, if it reads the same each time. More are faster
/// when all workers read what lies together: 1x4096x4096 17 us with shares of their own and 40 without,
/// 1x4096x11008 126 and 108.
constexpr int64_t kKeptBytes = int64_t{1} << 20;

int64_t row_bytes_of_y(const LinearProblem& problem) {
  return int64_t{problem.N} * (problem.float_output ? int64_t{sizeof(float)} : 1);
}

/// `row_bytes` are those of a prepared row.
HostDivision divide(const HostGemm& gemm, int64_t row_bytes, int64_t row_multiple, int64_t threads) {
  const int64_t M = gemm.M;
  const int64_t N = gemm.problem.N;
  const int64_t K = gemm.problem.K;
  const int64_t groups = ceil_div(N, kGroupColumns);
  const int64_t reading = N * K * (kRowsLikeReading + M) / kRowsLikeReading;
  const int64_t workers = std::clamp<int64_t>(reading / kGrainBytes, 1, threads);

  // With R blocks a worker copies M / R rows of x and reads N * R / workers rows of weights. R doubles while
  // that lowers their sum.
  const int64_t most_blocks = ceil_div(M, std::max(row_multiple, 2 * kGroupRows));
  int64_t blocks = std::min(ceil_div(workers, groups), most_blocks);
  while (2 * blocks <= most_blocks && workers % (2 * blocks) == 0 &&
         2 * blocks * blocks * N <= kCopyLikeReading * M * workers) {
    blocks *= 2;
  }
  blocks = std::max(blocks, ceil_div(M * row_bytes, kBlockBytes));
  const int64_t block_rows = ceil_div(ceil_div(M, blocks), row_multiple) * row_multiple;
  blocks = ceil_div(M, block_rows);
  const bool kept = N * K * blocks / workers <= kKeptBytes;
  const int64_t parts = kept ? std::clamp<int64_t>(workers / blocks, 1, groups) : 1;
  return {block_rows, blocks, parts, std::min(workers, blocks * groups)};
}

}  // namespace

HostProduct::HostProduct(const HostPath& path, const HostGemm& gemm, int64_t threads)
    : path_(path),
      gemm_(gemm),
      row_bytes_(path.prepared_row_bytes(gemm.problem.K)),
      division_(divide(gemm, row_bytes_, path.row_multiple, threads)),
      share_count_(division_.blocks * division_.parts),
      shares_(static_cast<size_t>(share_count_)),
      next_share_(division_.workers),
      lines_of_worker_(
          ceil_div(std::min(division_.block_rows, gemm.M) * row_bytes_, int64_t{sizeof(CacheLine)})),
      lines_(std::make_unique_for_overwrite<CacheLine[]>(
          static_cast<size_t>(lines_of_worker_ * division_.workers))),
      compensations_(std::make_unique_for_overwrite<int32_t[]>(
          static_cast<size_t>(division_.block_rows * division_.workers))) {
  const int64_t groups = ceil_div(int64_t{gemm.problem.N}, kGroupColumns);
  for (int64_t s = 0; s < share_count_; ++s) {
    const int64_t part = s % division_.parts;
    share(s).first_row = s / division_.parts * division_.block_rows;
    share(s).end_row = std::min(share(s).first_row + division_.block_rows, gemm.M);
    share(s).next_group = part * groups / division_.parts;
    share(s).end_group = (part + 1) * groups / division_.parts;
  }
}

void HostProduct::work(int64_t worker) {
  Copied rows{gemm_, -1};
  rows.gemm.prepared_x = lines_[static_cast<size_t>(worker * lines_of_worker_)].bytes;
  rows.gemm.prepared_stride = row_bytes_;
  rows.gemm.x_compensations = compensations_.get() + worker * division_.block_rows;
  int64_t last = worker;
  for (int64_t s = worker; s < share_count_; s = next_share_++) multiply(rows, share(last = s));
  for (int64_t i = 1; i <= share_count_; ++i) {
    Share& other = share(last + i);
    const int64_t left = other.end_group - other.next_group.load(std::memory_order_relaxed);
    if (left >= (other.first_row == rows.first_row ? 1 : kGroupsWorthCopying)) multiply(rows, other);
  }
}

void HostProduct::multiply(Copied& rows, Share& share) {
  for (int64_t group = share.next_group++; group < share.end_group; group = share.next_group++) {
    if (share.first_row != rows.first_row) copy(rows, share);
    path_.multiply(rows.gemm, 0, rows.gemm.M, group);
  }
}

void HostProduct::copy(Copied& rows, const Share& share) {
  rows.first_row = share.first_row;
  rows.gemm.M = share.end_row - share.first_row;
  rows.gemm.x = gemm_.x + share.first_row * gemm_.problem.K;
  rows.gemm.y = static_cast<uint8_t*>(gemm_.y) + share.first_row * row_bytes_of_y(gemm_.problem);
  path_.prepare(rows.gemm, 0, rows.gemm.M);
}

}  // namespace q8ta::kernels
