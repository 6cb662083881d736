#include <span>

#include "benchmark/linear_contestants.h"
#include "kernels/kernel_family.h"
#include "kernels/layout.h"
#include "kernels/weights.h"
#include "vulkan/device.h"

namespace q8ta::benchmark {
namespace {

using kernels::ceil_div;

constexpr int64_t kColumns = 8;  // of a workgroup (GEMV) or of an invocation (GEMM)
constexpr int64_t kSide = 8;     // invocations of a workgroup of the GEMM along M and along N

// shaders/benchmark/pull_request.glsl
struct PushConstants {
  uint32_t M, N, K_words;
  float input_scale;
  int32_t input_zero_point;
  float inverse_output_scale;
  int32_t output_zero_point;
  uint32_t relu, has_bias;
};

size_t output_bytes(const kernels::LinearProblem& problem) {
  const kernels::Layout layout =
      problem.M == 1 ? kernels::Layout::packed_int8_4w : kernels::Layout::packed_int8_4h4w;
  return 4 * static_cast<size_t>(kernels::packed_words({1, problem.M, problem.N}, layout));
}

int64_t workgroup_count(const kernels::LinearProblem& problem) {
  const int64_t invocations_n = ceil_div(problem.N, kColumns);
  if (problem.M == 1) return invocations_n;
  return ceil_div(invocations_n, kSide) * ceil_div(ceil_div(problem.M, 4), kSide);
}

class PullRequestContestant final : public Contestant {
 public:
  PullRequestContestant(vulkan::Device& device, bool int_dot, const LinearInputs& inputs)
      : Contestant(device, output_bytes(inputs.problem)),
        channels_(device, inputs.channels, inputs.problem.N) {
    const kernels::LinearProblem& problem = inputs.problem;
    vulkan::PipelineSpec spec;
    if (problem.M == 1) {
      spec.shader = int_dot ? "benchmark.pull_request_gemv.int_dot" : "benchmark.pull_request_gemv.plain";
    } else {
      spec.shader = int_dot ? "benchmark.pull_request_gemm.int_dot" : "benchmark.pull_request_gemm.plain";
    }
    spec.bindings = 6;
    spec.push_constant_bytes = sizeof(PushConstants);
    const vulkan::BufferRange x = buffer_of(inputs.x.data, inputs.x.bytes);
    vulkan::BufferRange first;
    for (size_t copy = 0; copy < inputs.copies; ++copy) {
      vulkan::BufferRange weights;
      if (copy == 0) {
        first = weights = buffer_of(inputs.weights.data, inputs.weights.bytes);
      } else {
        weights = empty_buffer(inputs.weights.bytes);
        copy_now(first, weights);
      }
      add_op([&](vulkan::Recorder& recorder) { record(recorder, spec, problem, x, weights); });
    }
  }

 private:
  void record(vulkan::Recorder& recorder, const vulkan::PipelineSpec& spec,
              const kernels::LinearProblem& problem, const vulkan::BufferRange& x,
              const vulkan::BufferRange& weights) const {
    const kernels::Quantization& quantization = problem.quantization;
    const PushConstants arguments{problem.M,
                                  problem.N,
                                  static_cast<uint32_t>(ceil_div(problem.K, 4)),
                                  quantization.input_scale,
                                  quantization.input_zero_point,
                                  quantization.inverse_output_scale,
                                  quantization.output_zero_point,
                                  problem.relu ? 1U : 0U,
                                  problem.has_bias ? 1U : 0U};
    const kernels::ChannelBuffers channels = channels_.channels(0, problem.N);
    recorder.dispatch(
        recorder.device().pipelines().get(spec),
        {{x}, {weights}, {channels.weight_sums}, {channels.weight_scales}, {channels.bias}, {output(), true}},
        std::as_bytes(std::span(&arguments, 1)), static_cast<uint32_t>(workgroup_count(problem)),
        {"benchmark", problem.M == 1 ? "pull_request/gemv" : "pull_request/gemm", problem.M, problem.K,
         problem.N});
  }

  kernels::DeviceChannels channels_;
};

}  // namespace

std::unique_ptr<Contestant> make_pull_request(const vulkan::Selection& selection,
                                              const LinearInputs& inputs) {
  vulkan::Device& device = *selection.device;
  const bool int_dot = kernels::choose_family(device.info(), selection.disabled).int_dot;
  return std::make_unique<PullRequestContestant>(device, int_dot, inputs);
}

}  // namespace q8ta::benchmark
