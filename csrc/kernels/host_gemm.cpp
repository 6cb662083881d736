#include "kernels/host_gemm.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <stdexcept>

#include "kernels/host_gemm_variant.h"
#include "kernels/host_product.h"

namespace q8ta::kernels {
namespace {

void run(const HostPath& path, const HostGemm& gemm, const HostThreads& threads) {
  HostProduct product(path, gemm, threads.count);
  const auto work = [&](int64_t begin, int64_t end) {
    for (int64_t worker = begin; worker < end; ++worker) product.work(worker);
  };
  if (product.workers() == 1) {
    work(0, 1);
  } else {
    threads.parallel_for(product.workers(), 1, work);
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
