#include "ops/linear.h"

#include <algorithm>
#include <memory>

#include "kernels/linear.h"
#include "kernels/weight_cache.h"
#include "ops/checks.h"
#include "ops/host_linear.h"
#include "ops/linear_tensors.h"
#include "vulkan/selection.h"

namespace q8ta::ops {
namespace {

using kernels::CachedWeights;
using kernels::DeviceChannels;
using kernels::DeviceWeights;
using kernels::WeightCache;

/// Whether the weights lie in memory as the kernels read them, padding included.
bool is_packed(const Tensor& weights) {
  const int64_t N = weights.size(0);
  const int64_t K = weights.size(1);
  const int64_t row_bytes = kernels::padded_row_bytes(K);
  if ((K > 1 && weights.stride(1) != 1) || (N > 1 && weights.stride(0) != row_bytes)) return false;
  if (bytes_from_first_element(weights) < N * row_bytes) return false;
  const auto* rows = static_cast<const int8_t*>(weights.const_data_ptr());
  for (int64_t n = 0; n < N; ++n) {
    const int8_t* row = rows + n * row_bytes;
    if (std::any_of(row + K, row + row_bytes, [](int8_t byte) { return byte != 0; })) return false;
  }
  return true;
}

Tensor run_on_device(const vulkan::Selection& selection, const LinearArguments<Tensor>& arguments,
                     const CheckedLinear& checked, const Tensor& x) {
  vulkan::Device& device = *selection.device;
  const Tensor& weights = arguments.weights;
  const int64_t N = weights.size(0);
  const int64_t K = weights.size(1);
  const kernels::WeightKey key{&device, weights.const_data_ptr(), N, K, weights.stride(0), weights.stride(1)};
  const auto run_with = [&](const CachedWeights& on_device, const std::function<void*()>& output) {
    kernels::run_linear(device, kernels::choose_family(device.info(), selection.disabled), checked.problem,
                        checked.M, static_cast<const int8_t*>(x.const_data_ptr()), *on_device.weights,
                        *on_device.channels, output);
  };

  // The GPU starts on what the cache has; whether that is still up to date is checked while it works. Only
  // then is y needed, too.
  auto& cache = WeightCache::instance();
  std::optional<CachedWeights> cached = cache.find(key);
  std::optional<Tensor> y;
  bool same_weights = false;
  if (cached) {
    bool same_channels = false;
    run_with(*cached, [&] {
      same_weights = cached->content == content_of(weights);
      same_channels = cached->channels->same_as(ChannelTensors(arguments).pointers());
      y = empty_output(arguments);
      return y->mutable_data_ptr();
    });
    if (same_weights && same_channels) return *y;
  }

  const ChannelTensors channel_tensors(arguments);
  const kernels::HostChannels host_channels = channel_tensors.pointers();
  check_weight_scales(arguments.op, host_channels.weight_scales, N);
  auto channels = std::make_shared<const DeviceChannels>(device, host_channels, N);
  if (same_weights) {
    cached->channels = std::move(channels);
  } else {
    const kernels::ContentMark content = content_of(weights);
    const bool packed = is_packed(weights);
    const Tensor dense = packed ? weights : made_contiguous(weights);
    auto on_device = std::make_shared<const DeviceWeights>(
        device, static_cast<const int8_t*>(dense.const_data_ptr()), N, K, packed);
    cached = CachedWeights{std::move(on_device), std::move(channels), content, watch(weights)};
  }
  cache.store(key, *cached);
  if (!y) y = empty_output(arguments);
  run_with(*cached, [&] { return y->mutable_data_ptr(); });
  return *y;
}

Tensor run(const LinearArguments<Tensor>& arguments) {
  check_on_cpu(arguments);
  const CheckedLinear checked = check_linear(arguments);
  if (checked.M == 0) return empty_output(arguments);
  const Tensor x = made_contiguous(arguments.x);
  const std::shared_ptr<const vulkan::Selection> selection = vulkan::current_selection();
  if (selection->device == nullptr) return run_on_host(arguments, checked, x);
  return kernels::with_spare_memory([&] { return run_on_device(*selection, arguments, checked, x); });
}

}  // namespace

Tensor linear(const Tensor& x, double input_scale, int64_t input_zero_point, const Tensor& weights,
              const Tensor& weight_sums, const Tensor& weight_scales, double output_scale,
              int64_t output_zero_point, const std::optional<Tensor>& bias, StringHandle activation) {
  return run({"linear", x, input_scale, input_zero_point, weights, weight_sums, weight_scales, output_scale,
              output_zero_point, bias, take_string(activation)});
}

Tensor linear_gemv(const Tensor& x, double input_scale, int64_t input_zero_point, const Tensor& weights,
                   const Tensor& weight_sums, const Tensor& weight_scales, double output_scale,
                   int64_t output_zero_point, const std::optional<Tensor>& bias, StringHandle activation) {
  return run({"linear_gemv", x, input_scale, input_zero_point, weights, weight_sums, weight_scales,
              output_scale, output_zero_point, bias, take_string(activation), /*float_output=*/false,
              /*one_row=*/true});
}

Tensor linear_dequant(const Tensor& x, double input_scale, int64_t input_zero_point, const Tensor& weights,
                      const Tensor& weight_sums, const Tensor& weight_scales,
                      const std::optional<Tensor>& bias, StringHandle activation) {
  return run({"linear_dequant", x, input_scale, input_zero_point, weights, weight_sums, weight_scales, 1.0, 0,
              bias, take_string(activation), /*float_output=*/true});
}

}  // namespace q8ta::ops
