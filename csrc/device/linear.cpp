// The q8ta operators for vk tensors. They return at once: the work is queued on the device's stream.
#include "kernels/linear.h"

#include <ATen/EmptyTensor.h>
#include <ATen/ops/cat.h>
#include <c10/core/DeviceGuard.h>
#include <torch/library.h>

#include <algorithm>

#include "device/allocator.h"
#include "device/packed_weights.h"
#include "device/tensor_memory.h"
#include "kernels/pack.h"
#include "ops/linear_checks.h"
#include "vulkan/device_stream.h"
#include "vulkan/selection.h"

namespace q8ta::device {
namespace {

using Arguments = ops::LinearArguments<at::Tensor>;

// One op's work in a submission stays far below the 2 s of common watchdogs on a slow GPU (0.5 TMAC/s), and
// what it packs on the way stays small.
constexpr int64_t kMultipliesInSubmission = int64_t{1} << 36;
constexpr int64_t kScratchBytes = int64_t{64} << 20;

void check_devices(const Arguments& arguments) {
  const c10::Device device = arguments.x.device();
  const auto check = [&](const char* argument, const at::Tensor& tensor) {
    if (tensor.device() != device) {
      ops::fail(arguments.op, argument, "expected a tensor on ", device.str(), ", as x is, got one on ",
                tensor.device().str());
    }
  };
  check("weights", arguments.weights);
  check("weight_sums", arguments.weight_sums);
  check("weight_scales", arguments.weight_scales);
  if (arguments.bias) check("bias", *arguments.bias);
}

at::Tensor empty(at::IntArrayRef sizes, at::ScalarType type, c10::Device device) {
  const c10::DeviceGuard guard(device);
  return at::detail::empty_generic(sizes, &allocator(), c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
                                   type, std::nullopt);
}

vulkan::BufferRange words_of(const at::Tensor& tensor, int64_t bytes) {
  vulkan::BufferRange range = memory_of(tensor);
  range.size = vulkan::round_up(static_cast<VkDeviceSize>(bytes), 4);
  return range;
}

/// One row of x that is readable up to padded_row_bytes(K), as the GEMV reads it.
at::Tensor readable_row(const at::Tensor& x) {
  const int64_t row_bytes = kernels::padded_row_bytes(x.numel());
  if (readable_bytes(x) >= row_bytes) return x;
  const at::Tensor roomy = empty({row_bytes}, at::kChar, x.device());
  roomy.narrow(0, 0, x.numel()).copy_(x.view(-1));
  return roomy;
}

/// Part of what `whole` covers, in whole words.
vulkan::BufferRange words_at(const vulkan::BufferRange& whole, int64_t first, int64_t bytes) {
  return whole.subrange(static_cast<VkDeviceSize>(first),
                        vulkan::round_up(static_cast<VkDeviceSize>(bytes), 4));
}

/// Queues y [M, N] = linear(x [M, K]) for weights that fit into one binding. In parts, so that one op's work
/// in a submission stays bounded. No views of tensors here: each would cost the host a microsecond.
void record_rows(kernels::LinearProblem problem, int64_t M, const at::Tensor& x, const at::Tensor& weights,
                 const kernels::ChannelBuffers& channels, const at::Tensor& y) {
  vulkan::Device& device = vulkan_device_of(x);
  const kernels::KernelFamily family =
      kernels::choose_family(device.info(), vulkan::current_selection()->disabled);
  const int64_t K = problem.K;
  const int64_t y_row_bytes = int64_t{problem.N} * static_cast<int64_t>(y.element_size());
  const int64_t most =
      std::min(kMultipliesInSubmission / (problem.N * K), kScratchBytes / std::max(y_row_bytes, K));
  const int64_t step = std::max(most / kernels::kSlabRows * kernels::kSlabRows, kernels::kSlabRows);
  const at::Tensor row = M == 1 ? readable_row(x) : x;
  const vulkan::BufferRange x_memory = memory_of(row);
  const vulkan::BufferRange y_memory = memory_of(y);
  int64_t rows = 0;
  for (int64_t first = 0; first < M; first += rows) {
    rows =
        M - first <= step + 1 ? M - first : step;  // no lone row is left over: the GEMV reads behind its end
    problem.M = static_cast<uint32_t>(rows);
    const int64_t x_bytes = M == 1 ? kernels::padded_row_bytes(K) : rows * K;
    device.stream().record([&](vulkan::Recorder& recorder) {
      const vulkan::BufferRange prepared =
          kernels::record_prepare_x(recorder, problem, {words_at(x_memory, first * K, x_bytes), 0});
      kernels::record_linear(recorder, family, problem,
                             {prepared, memory_of(weights), channels,
                              words_at(y_memory, first * y_row_bytes, rows * y_row_bytes)});
    });
  }
}

at::Tensor run(const Arguments& arguments) {
  check_devices(arguments);
  const ops::CheckedLinear checked = ops::check_linear(arguments);
  const at::ScalarType type = arguments.float_output ? at::kFloat : at::kChar;
  const int64_t N = checked.problem.N;
  const int64_t K = checked.problem.K;
  vulkan::Device& device = vulkan_device_of(arguments.x);
  // At least kSlabRows rows of y are written at once, and a binding has to hold them.
  const int64_t y_columns = kScratchBytes / kernels::kSlabRows / static_cast<int64_t>(c10::elementSize(type));
  const int64_t slab = std::min(kernels::slab_columns(device, K), checked.M > 1 ? y_columns : N);
  if (N > slab && checked.M > 0) {
    std::vector<at::Tensor> parts;
    for (int64_t first = 0; first < N; first += slab) {
      const int64_t columns = std::min(slab, N - first);
      const at::Tensor weights = arguments.weights.narrow(0, first, columns);
      const at::Tensor sums = arguments.weight_sums.narrow(0, first, columns);
      const at::Tensor scales = arguments.weight_scales.narrow(0, first, columns);
      std::optional<at::Tensor> bias;
      if (arguments.bias) bias = arguments.bias->narrow(0, first, columns);
      parts.push_back(run({arguments.op, arguments.x, arguments.input_scale, arguments.input_zero_point,
                           weights, sums, scales, arguments.output_scale, arguments.output_zero_point, bias,
                           arguments.activation, arguments.float_output, arguments.one_row}));
    }
    return at::cat(parts, -1);
  }

  const at::Tensor y = empty(checked.output_sizes, type, arguments.x.device());
  if (checked.M == 0) return y;
  const at::Tensor x = bindable(arguments.x);
  const at::Tensor weights = packed_weights(arguments.weights, kernels::PackOrder::padded_rows);
  const at::Tensor sums = bindable(arguments.weight_sums);
  const at::Tensor scales = bindable(arguments.weight_scales);
  const at::Tensor bias = arguments.bias ? bindable(*arguments.bias) : scales;
  const kernels::ChannelBuffers channels{words_of(sums, 4 * N), words_of(scales, 4 * N),
                                         words_of(bias, 4 * N)};
  record_rows(checked.problem, checked.M, x, weights, channels, y);
  return y;
}

at::Tensor linear(const at::Tensor& x, double input_scale, int64_t input_zero_point,
                  const at::Tensor& weights, const at::Tensor& weight_sums, const at::Tensor& weight_scales,
                  double output_scale, int64_t output_zero_point, const std::optional<at::Tensor>& bias,
                  c10::string_view activation) {
  const std::string name(activation);
  return run({"linear", x, input_scale, input_zero_point, weights, weight_sums, weight_scales, output_scale,
              output_zero_point, bias, name});
}

at::Tensor linear_gemv(const at::Tensor& x, double input_scale, int64_t input_zero_point,
                       const at::Tensor& weights, const at::Tensor& weight_sums,
                       const at::Tensor& weight_scales, double output_scale, int64_t output_zero_point,
                       const std::optional<at::Tensor>& bias, c10::string_view activation) {
  const std::string name(activation);
  return run({"linear_gemv", x, input_scale, input_zero_point, weights, weight_sums, weight_scales,
              output_scale, output_zero_point, bias, name, /*float_output=*/false, /*one_row=*/true});
}

at::Tensor linear_dequant(const at::Tensor& x, double input_scale, int64_t input_zero_point,
                          const at::Tensor& weights, const at::Tensor& weight_sums,
                          const at::Tensor& weight_scales, const std::optional<at::Tensor>& bias,
                          c10::string_view activation) {
  const std::string name(activation);
  return run({"linear_dequant", x, input_scale, input_zero_point, weights, weight_sums, weight_scales, 1.0, 0,
              bias, name,
              /*float_output=*/true});
}

TORCH_LIBRARY_IMPL(q8ta, PrivateUse1, library) {
  library.impl("linear", TORCH_FN(linear));
  library.impl("linear_gemv", TORCH_FN(linear_gemv));
  library.impl("linear_dequant", TORCH_FN(linear_dequant));
}

}  // namespace
}  // namespace q8ta::device
