#include "ops/linear.h"

#include <algorithm>
#include <memory>

#include "kernels/host_epilogue.h"
#include "kernels/linear.h"
#include "kernels/weight_cache.h"
#include "ops/checks.h"
#include "ops/int_matmul.h"
#include "vulkan/profiler.h"
#include "vulkan/selection.h"

namespace q8ta::ops {
namespace {

using kernels::CachedWeights;
using kernels::DeviceChannels;
using kernels::DeviceWeights;
using kernels::WeightCache;

constexpr int64_t kHostGrain = 16'384;  // elements of the epilogue worth a thread

/// Contiguous host copies (or the tensors themselves) of what belongs to each output channel.
class ChannelTensors {
 public:
  explicit ChannelTensors(const LinearArguments<Tensor>& arguments)
      : sums_(made_contiguous(arguments.weight_sums)), scales_(made_contiguous(arguments.weight_scales)) {
    if (arguments.bias) bias_ = made_contiguous(*arguments.bias);
  }

  kernels::HostChannels pointers() const {
    return {static_cast<const int32_t*>(sums_.const_data_ptr()),
            static_cast<const float*>(scales_.const_data_ptr()),
            bias_ ? static_cast<const float*>(bias_->const_data_ptr()) : nullptr};
  }

 private:
  Tensor sums_, scales_;
  std::optional<Tensor> bias_;
};

/// What the cache needs so that it does not outlive a tensor that it knows only by address: null if the
/// tensor's storage is watched, else the tensor.
std::shared_ptr<void> watch(const Tensor& tensor) {
  AtenTensorHandle handle = nullptr;
  if (const kernels::StorageWatcher watcher = kernels::storage_watcher()) {
    TORCH_ERROR_CODE_CHECK(aoti_torch_new_tensor_handle(tensor.get(), &handle));
    if (watcher(handle)) return nullptr;
  }
  TORCH_ERROR_CODE_CHECK(aoti_torch_new_tensor_handle(tensor.get(), &handle));
  return std::make_shared<Tensor>(handle);
}

Tensor empty_output(const CheckedLinear& checked) {
  return empty_cpu(checked.output_sizes, checked.problem.float_output ? ScalarType::Float : ScalarType::Char);
}

kernels::ContentMark content_of(const Tensor& tensor) {
  int64_t last_element = 0;
  for (int64_t i = 0; i < tensor.dim(); ++i) last_element += (tensor.size(i) - 1) * tensor.stride(i);
  const auto bytes = static_cast<size_t>(last_element + 1) * tensor.element_size();
  return {version_of(tensor), kernels::sample_bytes(tensor.const_data_ptr(), bytes)};
}

/// Whether the weights lie in memory as the kernels read them, padding included.
bool is_packed(const Tensor& weights) {
  const int64_t N = weights.size(0);
  const int64_t K = weights.size(1);
  const int64_t row_bytes = kernels::weight_row_bytes(K);
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
      y = empty_output(checked);
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
  if (!y) y = empty_output(checked);
  run_with(*cached, [&] { return y->mutable_data_ptr(); });
  return *y;
}

Tensor run_on_host(const LinearArguments<Tensor>& arguments, const CheckedLinear& checked, const Tensor& x) {
  const Tensor y = empty_output(checked);
  const int64_t N = checked.problem.N;
  const ChannelTensors tensors(arguments);
  const kernels::HostChannels channels = tensors.pointers();
  check_weight_scales(arguments.op, channels.weight_scales, N);
  const IntProduct product =
      int_matmul(torch::stable::view(x, {checked.M, checked.problem.K}), arguments.weights);
  const auto* sums = static_cast<const int32_t*>(product.accumulators.const_data_ptr());
  void* out = y.mutable_data_ptr();
  torch::stable::parallel_for(0, checked.M * N, kHostGrain, [&](int64_t begin, int64_t end) {
    kernels::host_epilogue(checked.problem, channels, sums, begin, end, out);
  });
  auto& profiler = vulkan::Profiler::instance();
  if (profiler.enabled()) {
    profiler.add({{arguments.op, product.kernel, static_cast<uint32_t>(checked.M), checked.problem.K,
                   checked.problem.N},
                  0,
                  std::nullopt});
  }
  return y;
}

Tensor run(const LinearArguments<Tensor>& arguments) {
  check_on_cpu(arguments);
  const CheckedLinear checked = check_linear(arguments);
  if (checked.M == 0) return empty_output(checked);
  const Tensor x = made_contiguous(arguments.x);
  const std::shared_ptr<const vulkan::Selection> selection = vulkan::current_selection();
  return selection->device != nullptr ? run_on_device(*selection, arguments, checked, x)
                                      : run_on_host(arguments, checked, x);
}

}  // namespace

Tensor linear(const Tensor& x, double input_scale, int64_t input_zero_point, const Tensor& weights,
              const Tensor& weight_sums, const Tensor& weight_scales, double output_scale,
              int64_t output_zero_point, const std::optional<Tensor>& bias, const std::string& activation) {
  return run({"linear", x, input_scale, input_zero_point, weights, weight_sums, weight_scales, output_scale,
              output_zero_point, bias, activation});
}

Tensor linear_gemv(const Tensor& x, double input_scale, int64_t input_zero_point, const Tensor& weights,
                   const Tensor& weight_sums, const Tensor& weight_scales, double output_scale,
                   int64_t output_zero_point, const std::optional<Tensor>& bias,
                   const std::string& activation) {
  return run({"linear_gemv", x, input_scale, input_zero_point, weights, weight_sums, weight_scales,
              output_scale, output_zero_point, bias, activation, /*float_output=*/false, /*one_row=*/true});
}

Tensor linear_dequant(const Tensor& x, double input_scale, int64_t input_zero_point, const Tensor& weights,
                      const Tensor& weight_sums, const Tensor& weight_scales,
                      const std::optional<Tensor>& bias, const std::string& activation) {
  return run({"linear_dequant", x, input_scale, input_zero_point, weights, weight_sums, weight_scales, 1.0, 0,
              bias, activation, /*float_output=*/true});
}

}  // namespace q8ta::ops
