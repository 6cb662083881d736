#include <deque>
#include <string>

#include "benchmark/linear_contestants.h"
#include "kernels/kernel_family.h"
#include "kernels/layout.h"
#include "kernels/linear.h"
#include "kernels/linear_choice.h"
#include "kernels/weights.h"
#include "vulkan/error.h"

namespace q8ta::benchmark {
namespace {

size_t output_bytes(const kernels::LinearProblem& problem) {
  return size_t{problem.M} * problem.N * (problem.float_output ? sizeof(float) : 1);
}

class LinearContestant final : public Contestant {
 public:
  LinearContestant(vulkan::Device& device, const kernels::KernelFamily& family, const LinearInputs& inputs)
      : Contestant(device, output_bytes(inputs.problem)),
        channels_(device, inputs.channels, inputs.problem.N) {
    const kernels::LinearProblem& problem = inputs.problem;
    const int64_t limit = kernels::slab_columns(device, problem.K);
    if (problem.N > limit) {
      throw vulkan::Error(
          "the benchmark measures single dispatches, and one of K = " + std::to_string(problem.K) +
          " computes at most " + std::to_string(limit) + " columns on this device");
    }
    const auto readable = static_cast<size_t>(kernels::padded_row_bytes(problem.K));
    const vulkan::ByteRange x{
        buffer_of(inputs.x.data, inputs.x.bytes, problem.M == 1 ? readable : inputs.x.bytes), 0};
    kernels::LinearChoices& choices = kernels::LinearChoices::of(device);
    kernels::LinearKernel kernel = choices.get(family, problem);
    kernels::PackOrder order = kernels::PackOrder::padded_rows;
    if (const auto in_tiles = choices.get_in_tiles(family, problem)) {
      kernel = *in_tiles;
      order = kernels::PackOrder::tiles;
    }
    const auto* weights = static_cast<const int8_t*>(inputs.weights.data);
    for (size_t copy = 0; copy < inputs.copies; ++copy) {
      const kernels::DeviceWeights& on_device =
          weights_.emplace_back(device, weights, problem.N, problem.K, /*packed=*/false, order);
      add_op([&](vulkan::Recorder& recorder) {
        const vulkan::BufferRange prepared = kernels::record_prepare_x(recorder, problem, x);
        kernels::record_linear(
            recorder, kernel, problem,
            {prepared, on_device.rows(0, problem.N), channels_.channels(0, problem.N), output()});
      });
    }
  }

 private:
  kernels::DeviceChannels channels_;
  std::deque<kernels::DeviceWeights> weights_;
};

}  // namespace

std::unique_ptr<Contestant> make_linear(const vulkan::Selection& selection, const LinearInputs& inputs) {
  return std::make_unique<LinearContestant>(
      *selection.device, kernels::choose_family(selection.device->info(), selection.disabled), inputs);
}

}  // namespace q8ta::benchmark
