#include "kernels/linear_dispatch.h"

#include <span>

#include "kernels/layout.h"
#include "vulkan/device.h"

namespace q8ta::kernels {
namespace {

// shaders/include/linear.glsl
struct LinearPushConstants {
  uint32_t M, N, K_blocks;
  float input_scale;
  int32_t input_zero_point;
  float inverse_output_scale;
  int32_t output_zero_point;
  uint32_t flags;
};

constexpr uint32_t kFlagRelu = 1;
constexpr uint32_t kFlagBias = 2;

}  // namespace

LinearKernel make_linear_kernel(vulkan::Device& device, const LinearPlan& plan) {
  vulkan::PipelineSpec spec = plan.spec;
  spec.bindings = 6;
  spec.push_constant_bytes = sizeof(LinearPushConstants);
  return {&device.pipelines().get(spec), plan.workgroups, plan.kernel, plan.faster_in_tiles};
}

void record_linear_dispatch(vulkan::Recorder& recorder, const LinearKernel& kernel,
                            const LinearProblem& problem, const LinearBuffers& buffers) {
  const Quantization& quantization = problem.quantization;
  const LinearPushConstants arguments{
      problem.M,
      problem.N,
      static_cast<uint32_t>(padded_row_bytes(problem.K) / 16),
      quantization.input_scale,
      quantization.input_zero_point,
      quantization.inverse_output_scale,
      quantization.output_zero_point,
      (problem.relu ? kFlagRelu : 0U) | (problem.has_bias ? kFlagBias : 0U),
  };
  const ChannelBuffers& channels = buffers.channels;
  recorder.dispatch(*kernel.pipeline,
                    {{buffers.x},
                     {buffers.weights},
                     {channels.weight_sums},
                     {channels.weight_scales},
                     {channels.bias},
                     {buffers.y, true}},
                    std::as_bytes(std::span(&arguments, 1)), kernel.workgroups,
                    {problem.op, kernel.name, problem.M, problem.K, problem.N});
}

}  // namespace q8ta::kernels
