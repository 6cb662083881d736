// The q8ta operators for vk tensors. They return at once: the work is queued on the device's stream.
#include "kernels/linear.h"

#include <ATen/EmptyTensor.h>
#include <ATen/ops/cat.h>
#include <c10/core/DeviceGuard.h>
#include <torch/library.h>

#include <algorithm>
#include <utility>

#include "device/allocator.h"
#include "device/out_of_memory.h"
#include "device/packed_weights.h"
#include "device/stack.h"
#include "device/tensor_memory.h"
#include "kernels/linear_choice.h"
#include "kernels/pack.h"
#include "ops/linear_checks.h"
#include "vulkan/device_stream.h"
#include "vulkan/error.h"
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
  return memory_from(tensor, static_cast<int64_t>(vulkan::round_up(static_cast<VkDeviceSize>(bytes), 4)));
}

/// What choose_family says of the device and of what is switched off now. Every op asks, so each thread
/// remembers the last answer.
const kernels::KernelFamily& current_family(const vulkan::Device& device) {
  struct Answer {
    const vulkan::Device* device = nullptr;
    uint64_t selection = 0;
    kernels::KernelFamily family;
  };
  thread_local Answer last;
  const uint64_t selection = vulkan::selection_changes();  // before asking: it may change meanwhile
  if (last.device != &device || last.selection != selection) {
    const auto disabled = vulkan::current_selection()->disabled;
    last = {&device, selection, kernels::choose_family(device.info(), disabled)};
  }
  return last.family;
}

/// One row of x that is readable up to padded_row_bytes(K), as the GEMV reads it.
vulkan::BufferRange readable_row(const at::Tensor& x, at::Tensor& copy) {
  const int64_t row_bytes = kernels::padded_row_bytes(x.numel());
  if (readable_bytes(x) >= row_bytes) return words_of(x, row_bytes);
  copy = empty({row_bytes}, at::kChar, x.device());
  copy.narrow(0, 0, x.numel()).copy_(x.view(-1));
  return words_of(copy, row_bytes);
}

/// Part of what `whole` covers, in whole words.
vulkan::BufferRange words_at(const vulkan::BufferRange& whole, int64_t first, int64_t bytes) {
  return whole.subrange(static_cast<VkDeviceSize>(first),
                        vulkan::round_up(static_cast<VkDeviceSize>(bytes), 4));
}

/// The weights of one call in the orders that kernels read, packed when they are first asked for.
class Weights {
 public:
  explicit Weights(const at::Tensor& weights) : weights_(weights) {}

  vulkan::BufferRange rows() {
    if (!rows_) rows_ = weights_in_rows(weights_);
    return range(**rows_, kernels::PackOrder::padded_rows);
  }

  /// Empty if there are none.
  std::optional<vulkan::BufferRange> tiles() {
    if (!asked_for_tiles_) tiles_ = weights_in_tiles(weights_);
    asked_for_tiles_ = true;
    if (!tiles_) return std::nullopt;
    return range(*tiles_, kernels::PackOrder::tiles);
  }

  void drop_tiles() { tiles_.reset(); }

 private:
  vulkan::BufferRange range(const at::Tensor& packed, kernels::PackOrder order) const {
    return memory_from(packed, 4 * kernels::packed_words({1, weights_.size(0), weights_.size(1)}, order));
  }

  const at::Tensor& weights_;
  std::optional<c10::MaybeOwned<at::Tensor>> rows_;
  bool asked_for_tiles_ = false;
  std::optional<at::Tensor> tiles_;
};

/// The buffers of one call.
struct Operands {
  Weights& weights;
  kernels::ChannelBuffers channels;
  vulkan::BufferRange y;
};

void record_row(vulkan::Device& device, kernels::LinearProblem problem, const at::Tensor& x,
                const Operands& operands) {
  const kernels::KernelFamily& family = current_family(device);
  problem.M = 1;
  at::Tensor copy;
  const vulkan::BufferRange row = readable_row(x, copy);
  const vulkan::BufferRange weights = operands.weights.rows();
  device.stream().record([&](vulkan::Recorder& recorder) {
    kernels::record_linear(
        recorder, family, problem,
        {row, weights, operands.channels, words_at(operands.y, 0, static_cast<int64_t>(operands.y.size))});
  });
}

/// Has a part of a call recorded by the kernel for it and of the weights in the order that this one reads.
template <typename Record>
void record_best(vulkan::Device& device, const kernels::LinearProblem& problem, Weights& weights,
                 const Record& record) {
  const kernels::KernelFamily& family = current_family(device);
  kernels::LinearChoices& choices = kernels::LinearChoices::of(device);
  bool wants_tiles = false;
  const auto choose_and_record = [&](bool may_take_tiles) {
    const kernels::LinearKernel kernel = choices.get(family, problem);
    wants_tiles = kernel.faster_in_tiles;
    if (wants_tiles && may_take_tiles) {
      const auto in_tiles = choices.get_in_tiles(family, problem);
      const auto tiles = in_tiles ? weights.tiles() : std::nullopt;
      if (tiles) return record(*in_tiles, *tiles);
    }
    record(kernel, weights.rows());
  };
  try {
    return choose_and_record(true);
  } catch (const vulkan::OutOfMemory&) {  // memory that is not asked of torch's allocator: scratch, trials
    weights.drop_tiles();
    if (!give_back_weights_in_tiles() && !wants_tiles) throw;
  }
  choose_and_record(false);
}

/// Queues y [M, N] = linear(x [M, K]) for weights that fit into one binding. In parts, so that one op's work
/// in a submission stays bounded. No views of tensors here: each would cost the host a microsecond.
void record_rows(vulkan::Device& device, kernels::LinearProblem problem, int64_t M, const at::Tensor& x,
                 const Operands& operands) {
  const int64_t K = problem.K;
  const int64_t y_row_bytes = static_cast<int64_t>(operands.y.size) / M;
  const int64_t most =
      std::min(kMultipliesInSubmission / (problem.N * K), kScratchBytes / std::max(y_row_bytes, K));
  const int64_t step = std::max(most / kernels::kSlabRows * kernels::kSlabRows, kernels::kSlabRows);
  const vulkan::BufferRange x_memory = memory_of(x);
  int64_t rows = 0;
  for (int64_t first = 0; first < M; first += rows) {
    rows =
        M - first <= step + 1 ? M - first : step;  // no lone row is left over: the GEMV reads behind its end
    problem.M = static_cast<uint32_t>(rows);
    const auto record = [&](const kernels::LinearKernel& kernel, const vulkan::BufferRange& weights) {
      device.stream().record([&](vulkan::Recorder& recorder) {
        const vulkan::BufferRange prepared =
            kernels::record_prepare_x(recorder, problem, {words_at(x_memory, first * K, rows * K), 0});
        kernels::record_linear(recorder, kernel, problem,
                               {prepared, weights, operands.channels,
                                words_at(operands.y, first * y_row_bytes, rows * y_row_bytes)});
      });
    };
    record_best(device, problem, operands.weights, record);
  }
}

at::Tensor run(const Arguments& arguments);

/// The same for slabs of columns, whose weights fit into one binding each.
at::Tensor run_in_slabs(const Arguments& arguments, int64_t slab) {
  const int64_t N = arguments.weights.size(0);
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
  if (N > slab && checked.M > 0) return run_in_slabs(arguments, slab);

  c10::DimVector y_sizes(arguments.x.sizes());
  y_sizes.back() = N;
  at::Tensor y = empty(y_sizes, type, arguments.x.device());
  if (checked.M == 0) return y;
  const auto x = bindable(arguments.x, device);
  Weights weights(arguments.weights);
  const auto sums = bindable(arguments.weight_sums, device);
  const auto scales = bindable(arguments.weight_scales, device);
  const auto bias = bindable(arguments.bias ? *arguments.bias : arguments.weight_scales, device);
  const Operands operands{weights,
                          {words_of(*sums, 4 * N), words_of(*scales, 4 * N), words_of(*bias, 4 * N)},
                          memory_from(y, checked.M * N * static_cast<int64_t>(c10::elementSize(type)))};
  if (checked.M == 1) {
    record_row(device, checked.problem, *x, operands);
  } else {
    record_rows(device, checked.problem, checked.M, *x, operands);
  }
  return y;
}

// The operators take their arguments where they lie on the stack: the references are counted nowhere.

/// linear and linear_gemv: x, input_scale, input_zero_point, weights, weight_sums, weight_scales,
/// output_scale, output_zero_point, bias, activation.
void run_linear(const char* op, bool one_row, torch::jit::Stack& stack) {
  constexpr size_t kArguments = 10;
  const c10::IValue* const given = &stack[stack.size() - kArguments];
  at::Tensor y;
  {
    const auto bias = given[8].toOptional<at::Tensor>();
    y = run({op, given[0].toTensor(), given[1].toDouble(), given[2].toInt(), given[3].toTensor(),
             given[4].toTensor(), given[5].toTensor(), given[6].toDouble(), given[7].toInt(), bias,
             given[9].toStringView(), /*float_output=*/false, one_row});
  }
  drop_arguments(stack, kArguments);
  stack.emplace_back(std::move(y));
}

void linear(const c10::OperatorHandle& /*op*/, torch::jit::Stack* stack) {
  run_linear("linear", /*one_row=*/false, *stack);
}

void linear_gemv(const c10::OperatorHandle& /*op*/, torch::jit::Stack* stack) {
  run_linear("linear_gemv", /*one_row=*/true, *stack);
}

/// The same without output_scale and output_zero_point.
void linear_dequant(const c10::OperatorHandle& /*op*/, torch::jit::Stack* stack) {
  constexpr size_t kArguments = 8;
  const c10::IValue* const given = &(*stack)[stack->size() - kArguments];
  at::Tensor y;
  {
    const auto bias = given[6].toOptional<at::Tensor>();
    y = run({"linear_dequant", given[0].toTensor(), given[1].toDouble(), given[2].toInt(),
             given[3].toTensor(), given[4].toTensor(), given[5].toTensor(), 1.0, 0, bias,
             given[7].toStringView(), /*float_output=*/true});
  }
  drop_arguments(*stack, kArguments);
  stack->emplace_back(std::move(y));
}

TORCH_LIBRARY_IMPL(q8ta, PrivateUse1, library) {
  library.impl("linear", torch::CppFunction::makeFromBoxedFunction<&Kernel<&linear>::call>());
  library.impl("linear_gemv", torch::CppFunction::makeFromBoxedFunction<&Kernel<&linear_gemv>::call>());
  library.impl("linear_dequant", torch::CppFunction::makeFromBoxedFunction<&Kernel<&linear_dequant>::call>());
}

}  // namespace
}  // namespace q8ta::device
