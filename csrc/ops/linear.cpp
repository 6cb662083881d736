#include "ops/linear.h"

#include <memory>
#include <stdexcept>

#include "kernels/host_epilogue.h"
#include "kernels/linear.h"
#include "kernels/weight_cache.h"
#include "ops/checks.h"
#include "ops/int_matmul.h"
#include "vulkan/profiler.h"
#include "vulkan/selection.h"

namespace q8ta::ops {
namespace {

using kernels::CachedSource;
using kernels::DeviceChannels;
using kernels::DeviceWeights;
using kernels::WeightCache;

constexpr int64_t kHostGrain = 16'384;  // elements of the epilogue worth a thread

/// What the cache needs so that it does not outlive the tensors it knows only by address.
std::vector<std::shared_ptr<void>> watch(std::initializer_list<const Tensor*> tensors) {
  std::vector<std::shared_ptr<void>> keep_alive;
  const kernels::StorageWatcher watcher = kernels::storage_watcher();
  for (const Tensor* tensor : tensors) {
    if (tensor == nullptr) continue;
    AtenTensorHandle handle = nullptr;
    STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_new_tensor_handle(tensor->get(), &handle));
    if (watcher != nullptr) {
      if (watcher(handle)) continue;
      STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_new_tensor_handle(tensor->get(), &handle));
    }
    keep_alive.push_back(std::make_shared<Tensor>(handle));
  }
  return keep_alive;
}

CachedSource source_of(const Tensor& tensor) {
  int64_t last_element = 0;
  for (int64_t i = 0; i < tensor.dim(); ++i) last_element += (tensor.size(i) - 1) * tensor.stride(i);
  const auto bytes = static_cast<size_t>(last_element + 1) * tensor.element_size();
  const void* data = tensor.const_data_ptr();
  return {data, version_of(tensor), kernels::sample_bytes(data, bytes)};
}

std::shared_ptr<const DeviceWeights> device_weights(vulkan::Device& device, kernels::PackOrder order,
                                                    const Tensor& weights) {
  const int64_t N = weights.size(0);
  const int64_t K = weights.size(1);
  const std::vector<int64_t> shape{reinterpret_cast<int64_t>(&device),
                                   static_cast<int64_t>(order),
                                   N,
                                   K,
                                   weights.stride(0),
                                   weights.stride(1)};
  const std::vector<CachedSource> sources{source_of(weights)};
  auto& cache = WeightCache::instance().weights;
  if (std::shared_ptr<const DeviceWeights> cached = cache.find(shape, sources)) return cached;
  const Tensor dense = made_contiguous(weights);
  auto packed = std::make_shared<const DeviceWeights>(
      device, order, static_cast<const int8_t*>(dense.const_data_ptr()), N, K);
  cache.insert(shape, sources, packed, watch({&weights}));
  return packed;
}

/// Contiguous host copies (or the tensors themselves) of what belongs to each output channel.
struct ChannelTensors {
  Tensor sums, scales;
  std::optional<Tensor> bias;

  explicit ChannelTensors(const LinearArguments& arguments)
      : sums(made_contiguous(arguments.weight_sums)), scales(made_contiguous(arguments.weight_scales)) {
    if (arguments.bias) bias = made_contiguous(*arguments.bias);
  }

  kernels::HostChannels pointers() const {
    return {static_cast<const int32_t*>(sums.const_data_ptr()),
            static_cast<const float*>(scales.const_data_ptr()),
            bias ? static_cast<const float*>(bias->const_data_ptr()) : nullptr};
  }
};

std::shared_ptr<const DeviceChannels> device_channels(vulkan::Device& device,
                                                      const LinearArguments& arguments, int64_t N) {
  const Tensor& sums = arguments.weight_sums;
  const Tensor& scales = arguments.weight_scales;
  const Tensor* bias = arguments.bias ? &*arguments.bias : nullptr;
  const std::vector<int64_t> shape{reinterpret_cast<int64_t>(&device), N, sums.stride(0), scales.stride(0),
                                   bias == nullptr ? 0 : bias->stride(0)};
  std::vector<CachedSource> sources{source_of(sums), source_of(scales)};
  if (bias != nullptr) sources.push_back(source_of(*bias));
  auto& cache = WeightCache::instance().channels;
  if (std::shared_ptr<const DeviceChannels> cached = cache.find(shape, sources)) return cached;
  const ChannelTensors tensors(arguments);
  const kernels::HostChannels host = tensors.pointers();
  check_weight_scales(arguments.op, host.weight_scales, N);
  auto channels =
      std::make_shared<const DeviceChannels>(device, host.weight_sums, host.weight_scales, host.bias, N);
  cache.insert(shape, sources, channels, watch({&sums, &scales, bias}));
  return channels;
}

void run_on_device(const vulkan::Selection& selection, const LinearArguments& arguments,
                   const CheckedLinear& checked, const Tensor& x, Tensor& y) {
  vulkan::Device& device = *selection.device;
  const std::shared_ptr<const DeviceChannels> channels =
      device_channels(device, arguments, checked.problem.N);
  const std::shared_ptr<const DeviceWeights> weights =
      device_weights(device, kernels::weight_order(checked.M), arguments.weights);
  kernels::run_linear(device, kernels::choose_family(device.info(), selection.disabled), checked.problem,
                      checked.M, static_cast<const int8_t*>(x.const_data_ptr()), *weights, *channels,
                      y.mutable_data_ptr());
}

void run_on_host(const LinearArguments& arguments, const CheckedLinear& checked, const Tensor& x, Tensor& y) {
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
}

Tensor run(const LinearArguments& arguments, bool float_output, bool one_row = false) {
  CheckedLinear checked = check_linear(arguments);
  if (one_row && checked.M != 1) {
    throw std::runtime_error(
        "q8ta::linear_gemv: x: expected exactly one row (the product of the leading sizes), got " +
        std::to_string(checked.M) + "; q8ta::linear takes any number");
  }
  checked.problem.float_output = float_output;
  Tensor y = torch::stable::new_empty(arguments.x, checked.output_sizes,
                                      float_output ? ScalarType::Float : ScalarType::Char);
  if (checked.M == 0) return y;
  const Tensor x = made_contiguous(arguments.x);
  const std::shared_ptr<const vulkan::Selection> selection = vulkan::current_selection();
  if (selection->device != nullptr) {
    run_on_device(*selection, arguments, checked, x, y);
  } else {
    run_on_host(arguments, checked, x, y);
  }
  return y;
}

}  // namespace

Tensor linear(const Tensor& x, double input_scale, int64_t input_zero_point, const Tensor& weights,
              const Tensor& weight_sums, const Tensor& weight_scales, double output_scale,
              int64_t output_zero_point, const std::optional<Tensor>& bias, const std::string& activation) {
  return run({"linear", x, input_scale, input_zero_point, weights, weight_sums, weight_scales, output_scale,
              output_zero_point, bias, activation},
             false);
}

Tensor linear_gemv(const Tensor& x, double input_scale, int64_t input_zero_point, const Tensor& weights,
                   const Tensor& weight_sums, const Tensor& weight_scales, double output_scale,
                   int64_t output_zero_point, const std::optional<Tensor>& bias,
                   const std::string& activation) {
  return run({"linear_gemv", x, input_scale, input_zero_point, weights, weight_sums, weight_scales,
              output_scale, output_zero_point, bias, activation},
             false, true);
}

Tensor linear_dequant(const Tensor& x, double input_scale, int64_t input_zero_point, const Tensor& weights,
                      const Tensor& weight_sums, const Tensor& weight_scales,
                      const std::optional<Tensor>& bias, const std::string& activation) {
  return run({"linear_dequant", x, input_scale, input_zero_point, weights, weight_sums, weight_scales, 1.0, 0,
              bias, activation},
             true);
}

}  // namespace q8ta::ops
