#include "kernels/host_gemm.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <memory>
#include <stdexcept>

#include "kernels/host_gemm_variant.h"
#include "kernels/layout.h"

namespace q8ta::kernels {
namespace {

constexpr int64_t kSlabBytes = int64_t{16} << 20;    // of prepared x at a time
constexpr int64_t kBlockBytes = int64_t{1} << 20;    // of prepared x that stay in the L2 cache
constexpr int64_t kGrainBytes = int64_t{128} << 10;  // read from memory: worth waking a thread
constexpr int64_t kItemsOfThread = 4;                // at least, of blocks of rows x groups of columns
constexpr int64_t kRowsLikeReading = 8;              // so many rows cost as much again as reading the weights

/// Tiles of AMX whose rows cross cache lines are slow to load.
struct alignas(64) CacheLine {
  uint8_t bytes[64];
};

/// Without other threads where they would not help: a call of a small layer takes a few microseconds.
template <typename Work>
void in_parallel(const HostThreads& threads, int64_t items, int64_t grain, const Work& work) {
  if (threads.count <= 1 || items <= grain) {
    work(0, items);
  } else {
    threads.parallel_for(items, grain, work);
  }
}

/// The same item by item. Where there are many for each thread, they go to whichever is free: some are slower
/// than others on a machine that has something else to do.
template <typename Work>
void in_turns(const HostThreads& threads, int64_t items, int64_t grain, const Work& work) {
  const int64_t workers = std::min(threads.count, ceil_div(items, grain));
  if (items < kItemsOfThread * workers) {
    in_parallel(threads, items, grain, [&](int64_t begin, int64_t end) {
      for (int64_t item = begin; item < end; ++item) work(item);
    });
    return;
  }
  std::atomic<int64_t> next{0};
  in_parallel(threads, workers, 1, [&](int64_t, int64_t) {
    for (int64_t item = next++; item < items; item = next++) work(item);
  });
}

void run(const HostPath& path, HostGemm gemm, const HostThreads& threads) {
  const int64_t K = gemm.problem.K;
  gemm.prepared_stride = path.prepared_row_bytes(K);
  const int64_t slab_rows = std::clamp<int64_t>(kSlabBytes / gemm.prepared_stride, 1, gemm.M);
  const auto prepared = std::make_unique_for_overwrite<CacheLine[]>(
      static_cast<size_t>(ceil_div(slab_rows * gemm.prepared_stride, int64_t{sizeof(CacheLine)})));
  const auto compensations = std::make_unique_for_overwrite<int32_t[]>(static_cast<size_t>(slab_rows));
  gemm.prepared_x = prepared[0].bytes;
  gemm.x_compensations = compensations.get();

  const int64_t groups = ceil_div(gemm.problem.N, kGroupColumns);
  const int64_t y_row_bytes = int64_t{gemm.problem.N} * (gemm.problem.float_output ? 4 : 1);
  const int64_t M = gemm.M;
  for (int64_t first = 0; first < M; first += slab_rows) {
    gemm.M = std::min(slab_rows, M - first);
    in_parallel(threads, gemm.M, ceil_div(kGrainBytes, K),
                [&](int64_t begin, int64_t end) { path.prepare(gemm, begin, end); });

    // Blocks of rows: their x stays in the cache while the weights pass by, and there is work for each
    // thread.
    int64_t blocks = ceil_div(gemm.M * gemm.prepared_stride, kBlockBytes);
    const int64_t wanted = kItemsOfThread * threads.count;
    if (groups * blocks < wanted) {
      blocks = std::max(blocks, std::min(ceil_div(wanted, groups), gemm.M / (2 * kGroupRows)));
    }
    const int64_t equal_rows = ceil_div(gemm.M, std::max<int64_t>(blocks, 1));
    const int64_t block_rows = ceil_div(equal_rows, path.row_multiple) * path.row_multiple;
    blocks = ceil_div(gemm.M, block_rows);
    const int64_t item_bytes = kGroupColumns * K * (kRowsLikeReading + block_rows) / kRowsLikeReading;
    in_turns(threads, groups * blocks, ceil_div(kGrainBytes, item_bytes), [&](int64_t item) {
      const int64_t row = item / groups * block_rows;
      path.multiply(gemm, row, std::min(row + block_rows, gemm.M), item % groups);
    });
    gemm.x += gemm.M * K;
    gemm.y = static_cast<uint8_t*>(gemm.y) + gemm.M * y_row_bytes;
  }
}

bool run(const HostVariant& variant, const LinearProblem& problem, int64_t M, const HostChannels& channels,
         const int8_t* x, const HostWeights& weights, void* y, const HostThreads& threads) {
  bool invalid_scale = false;
  HostGemm gemm{};
  gemm.invalid_scale = &invalid_scale;
  gemm.problem = problem;
  gemm.channels = channels;
  gemm.x = x;
  gemm.M = M;
  gemm.y = y;
  if (weights.packed != nullptr) {
    gemm.weights = weights.packed->panels();
    gemm.weight_stride = weights.packed->panel_bytes();
    gemm.column_sums = weights.packed->sums();
    run(variant.packed, gemm, threads);
  } else {
    gemm.weights = weights.rows;
    gemm.weights_end = weights.rows + (int64_t{problem.N} - 1) * weights.row_stride + problem.K;
    gemm.weight_stride = weights.row_stride;
    run(variant.rows, gemm, threads);
  }
  return !invalid_scale;
}

bool packs(const HostVariant& variant) { return variant.packed.multiply != nullptr; }

/// A small product with extreme values: emulators and virtual machines have got such instructions wrong.
bool is_exact(const HostVariant& variant) {
  constexpr int64_t M = 37, K = 131, N = 70;
  std::array<int8_t, M * K> x;
  std::array<int8_t, N * K> weights;
  uint32_t state = 12'345;
  const auto fill = [&state](auto& bytes) {
    for (size_t i = 0; i < bytes.size(); ++i) {
      state = state * 1'664'525U + 1'013'904'223U;
      const auto row = static_cast<int64_t>(i) / K;
      bytes[i] = row % 5 == 0 ? -128 : row % 5 == 1 ? 127 : static_cast<int8_t>(state >> 24);
    }
  };
  fill(x);
  fill(weights);
  std::array<float, M * N> expected;
  for (int64_t m = 0; m < M; ++m) {
    for (int64_t n = 0; n < N; ++n) {
      int32_t sum = 0;
      for (int64_t k = 0; k < K; ++k) sum += int32_t{x[m * K + k]} * int32_t{weights[n * K + k]};
      expected[m * N + n] = static_cast<float>(sum);  // below 2^24: exact
    }
  }

  LinearProblem problem;
  problem.K = K;
  problem.N = N;
  problem.float_output = true;
  std::array<int32_t, N> sums{};
  std::array<float, N> ones;
  ones.fill(1.0F);
  const auto check = [&](const HostWeights& lying) {
    for (const int64_t rows : {int64_t{1}, int64_t{2}, int64_t{5}, int64_t{14}, M}) {
      std::array<float, M * N> y{};
      run(variant, problem, rows, {sums.data(), ones.data(), nullptr}, x.data(), lying, y.data(),
          HostThreads{});
      if (!std::equal(y.begin(), y.begin() + rows * N, expected.begin())) return false;
    }
    return true;
  };
  HostPackedWeights packed(N, K);
  packed.pack(weights.data(), K, 1, 0, packed.panel_count());
  return check({nullptr, weights.data(), K}) && (!packs(variant) || check({&packed, nullptr, 0}));
}

const std::vector<const HostVariant*>& usable_variants() {
  static const std::vector<const HostVariant*> usable = [] {
    std::vector<const HostVariant*> found;
    for (const HostVariant* variant : {amx_variant(), avx512_vnni_variant(), avx_vnni_variant(),
                                       avx2_variant(), neon_dot_variant(), portable_variant()}) {
      if (variant != nullptr && variant->runs_here() && is_exact(*variant)) found.push_back(variant);
    }
    return found;
  }();
  return usable;
}

std::atomic<const HostVariant*> forced{nullptr};

const HostVariant& current_variant() {
  const HostVariant* variant = forced.load();
  return variant != nullptr ? *variant : *usable_variants().front();
}

}  // namespace

bool host_linear(const LinearProblem& problem, int64_t M, const HostChannels& channels, const int8_t* x,
                 const HostWeights& weights, void* y, const HostThreads& threads) {
  return run(current_variant(), problem, M, channels, x, weights, y, threads);
}

bool host_packs_weights() { return packs(current_variant()); }

std::vector<std::string> host_variants() {
  std::vector<std::string> names;
  for (const HostVariant* variant : usable_variants()) names.emplace_back(variant->name);
  return names;
}

std::string host_variant() { return current_variant().name; }

void force_host_variant(const std::string& name) {
  const auto& usable = usable_variants();
  const auto found = std::find_if(usable.begin(), usable.end(),
                                  [&](const HostVariant* variant) { return name == variant->name; });
  if (found == usable.end() && !name.empty()) {
    throw std::invalid_argument("this processor has no host kernel '" + name + "'");
  }
  forced.store(name.empty() ? nullptr : *found);
}

}  // namespace q8ta::kernels
