#include "ops/host_linear.h"

#include <memory>

#include "kernels/host_gemm.h"
#include "kernels/host_weight_cache.h"
#include "ops/checks.h"
#include "ops/linear_tensors.h"
#include "vulkan/profiler.h"

namespace q8ta::ops {
namespace {

using kernels::HostPackedWeights;
using kernels::HostWeightCache;

/// Packing costs about what it saves over so many rows of x (measured with AVX-512 and K, N of 512 to 11008).
/// So weights that are used once with few rows, or always with one, are never packed.
constexpr int64_t kRowsWorthPacking = 32;

kernels::HostThreads threads() {
  return {static_cast<int64_t>(torch::stable::get_num_threads()),
          [](int64_t items, int64_t grain, const std::function<void(int64_t, int64_t)>& work) {
            torch::stable::parallel_for(0, items, grain, work);
          }};
}

bool has_dense_rows(const Tensor& weights) { return weights.size(1) == 1 || weights.stride(1) == 1; }

/// The packed weights, if they are packed already or if that is worth it now; else null.
std::shared_ptr<const HostPackedWeights> packed_weights(const Tensor& weights, int64_t M) {
  const bool dense_rows = has_dense_rows(weights);
  if (!kernels::host_packs_weights() || (M == 1 && dense_rows)) return nullptr;
  const int64_t N = weights.size(0);
  const int64_t K = weights.size(1);
  const auto* data = static_cast<const int8_t*>(weights.const_data_ptr());
  const kernels::WeightKey key{nullptr, data, N, K, weights.stride(0), weights.stride(1)};
  auto& cache = HostWeightCache::instance();
  kernels::CachedHostWeights cached = cache.count_rows(key, content_of(weights), M);
  if (cached.packed != nullptr || (dense_rows && cached.rows_seen < kRowsWorthPacking)) return cached.packed;

  const auto packed = std::make_shared<HostPackedWeights>(N, K);
  constexpr int64_t kGrainBytes = 1 << 18;
  torch::stable::parallel_for(0, packed->panel_count(), kernels::ceil_div(kGrainBytes, packed->panel_bytes()),
                              [&](int64_t begin, int64_t end) {
                                packed->pack(data, weights.stride(0), weights.stride(1), begin, end);
                              });
  cached.packed = packed;
  cached.keep_alive = watch(weights);
  cache.store(key, std::move(cached));
  return packed;
}

}  // namespace

Tensor run_on_host(const LinearArguments<Tensor>& arguments, const CheckedLinear& checked, const Tensor& x) {
  const int64_t N = checked.problem.N;
  const ChannelTensors tensors(arguments);
  const kernels::HostChannels channels = tensors.pointers();

  const Tensor& weights = arguments.weights;
  const std::shared_ptr<const HostPackedWeights> packed = packed_weights(weights, checked.M);
  const Tensor rows =
      packed != nullptr || has_dense_rows(weights) ? weights : torch::stable::contiguous(weights);
  // The stride of a single column or row may be anything.
  const int64_t row_stride = N == 1 ? int64_t{checked.problem.K} : rows.stride(0);
  const Tensor y = empty_output(arguments);
  const bool valid = kernels::host_linear(
      checked.problem, checked.M, channels, static_cast<const int8_t*>(x.const_data_ptr()),
      {packed.get(), static_cast<const int8_t*>(rows.const_data_ptr()), row_stride}, y.mutable_data_ptr(),
      threads());
  if (!valid) check_weight_scales(arguments.op, channels.weight_scales, N);

  auto& profiler = vulkan::Profiler::instance();
  if (profiler.enabled()) {
    profiler.add(
        {{arguments.op, "host/gemm", static_cast<uint32_t>(checked.M), checked.problem.K, checked.problem.N},
         0,
         std::nullopt});
  }
  return y;
}

}  // namespace q8ta::ops
