#include "kernels/linear_gemm.h"

#include <utility>

#include "kernels/layout.h"
#include "kernels/linear_dispatch.h"
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
  const GemmTile tile = choose_tile(problem);

  vulkan::PipelineSpec spec;
  spec.shader = family.int_dot ? "linear_gemm.int_dot" : "linear_gemm.plain";
  spec.set_constants({tile.blocks_m, tile.blocks_n, problem.float_output ? 1U : 0U});
  record_linear_dispatch(recorder, std::move(spec), problem, buffers,
                         static_cast<uint32_t>(ceil_div(problem.K, 4)), workgroup_count(problem, tile),
                         family.gemm_name(problem.float_output));
}

}  // namespace q8ta::kernels
