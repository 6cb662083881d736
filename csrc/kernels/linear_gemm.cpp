#include "kernels/linear_gemm.h"

#include <span>

#include "kernels/layout.h"
#include "vulkan/device.h"

namespace q8ta::kernels {
namespace {

constexpr uint32_t kThreads = 64;
constexpr uint32_t kTileColumns = 64;  // of a workgroup (shaders/linear_gemm.comp)

/// 4x4 blocks of outputs that a thread holds.
struct GemmTile {
  uint32_t blocks_m, blocks_n;

  uint32_t rows() const { return 4 * blocks_m * kThreads / (kTileColumns / 4 / blocks_n); }
};

uint32_t workgroup_count(const LinearProblem& problem, const GemmTile& tile) {
  return static_cast<uint32_t>(ceil_div(problem.M, tile.rows()) * ceil_div(problem.N, kTileColumns));
}

GemmTile choose_tile(const LinearProblem& problem) {
  // Big tiles read x and weights less often, small ones give more workgroups. 64 threads are two subgroups of
  // most GPUs, so a few hundred workgroups are what fills one.
  constexpr uint32_t kFillingWorkgroups = 512;
  constexpr GemmTile kBig{2, 2};
  constexpr GemmTile kSmall{1, 1};
  return workgroup_count(problem, kBig) >= kFillingWorkgroups ? kBig : kSmall;
}

}  // namespace

void record_linear_gemm(vulkan::Recorder& recorder, const KernelFamily& family, const LinearProblem& problem,
                        const LinearBuffers& buffers) {
  vulkan::Device& device = recorder.device();
  const GemmTile tile = choose_tile(problem);

  vulkan::PipelineSpec spec;
  spec.shader = family.int_dot ? "linear_gemm.int_dot" : "linear_gemm.plain";
  spec.set_constants({tile.blocks_m, tile.blocks_n, problem.float_output ? 1U : 0U});
  spec.bindings = 4;
  spec.push_constant_bytes = sizeof(LinearPushConstants);

  const LinearPushConstants arguments =
      linear_push_constants(problem, static_cast<uint32_t>(ceil_div(problem.K, 4)));
  recorder.dispatch(device.pipelines().get(spec),
                    {{buffers.x}, {buffers.weights}, {buffers.channels}, {buffers.y, true}},
                    std::as_bytes(std::span(&arguments, 1)), workgroup_count(problem, tile),
                    {problem.op, family.gemm_name(problem.float_output), problem.M, problem.K, problem.N});
}

}  // namespace q8ta::kernels
