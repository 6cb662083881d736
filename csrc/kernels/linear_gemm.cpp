#include "kernels/linear_gemm.h"

#include <array>

#include "kernels/workgroup.h"

namespace q8ta::kernels {
namespace {

constexpr uint32_t kThreadsN = 16;

/// Specialization constants of shaders/linear_gemm.comp.
struct GemmTile {
  uint32_t threads, rows, words, tile_k, unroll;

  uint32_t tile_m() const { return threads / kThreadsN * rows; }
  uint32_t tile_n() const { return 4 * words * kThreadsN; }
  bool fits(const vulkan::DeviceInfo& info) const {
    const uint32_t shared_bytes = (tile_m() + tile_n()) * (tile_k + 16);
    return workgroup_fits(info, threads, shared_bytes);
  }
};

// From large, which read x and weights less often, to small; all but the first fit every device.
// 1024x2048x2048 on an H200: 91 us with the first, 98 with the second; unrolled, a tile takes software
// drivers seconds to compile.
constexpr std::array<GemmTile, 4> kTiles{
    {{512, 4, 2, 128, 8}, {256, 8, 2, 64, 1}, {128, 8, 1, 64, 1}, {64, 4, 1, 64, 1}}};

GemmTile choose_tile(const vulkan::DeviceInfo& info, const LinearProblem& problem) {
  for (const GemmTile& tile : kTiles) {
    if (tile.fits(info) && tile_count(problem, tile.tile_m(), tile.tile_n()) >= kFillingWorkgroups)
      return tile;
  }
  return kTiles.back();
}

LinearPlan make_plan(const KernelFamily& family, const LinearProblem& problem, const GemmTile& tile) {
  const bool k_tail = padded_row_bytes(problem.K) % tile.tile_k != 0;
  LinearPlan plan;
  plan.spec.shader = family.int_dot ? "linear_gemm.int_dot" : "linear_gemm.plain";
  plan.spec.set_constants({tile.threads, problem.float_output ? 1U : 0U, k_tail ? 1U : 0U, tile.rows,
                           tile.words, tile.tile_k, tile.unroll,
                           bands_of_columns(problem, tile.tile_m(), tile.tile_n()) ? 1U : 0U});
  plan.problem_constants |= 1U << 2U | 1U << 7U;  // k_tail, bands_of_columns
  plan.tile_m = tile.tile_m();
  plan.tile_n = tile.tile_n();
  plan.workgroups = static_cast<uint32_t>(tile_count(problem, plan.tile_m, plan.tile_n));
  plan.kernel = family.dot_gemm_name(problem.float_output);
  return plan;
}

}  // namespace

LinearPlan plan_linear_gemm(const vulkan::DeviceInfo& info, const KernelFamily& family,
                            const LinearProblem& problem) {
  return make_plan(family, problem, choose_tile(info, problem));
}

std::vector<LinearPlan> linear_gemm_candidates(const vulkan::DeviceInfo& info, const KernelFamily& family,
                                               const LinearProblem& problem) {
  std::vector<LinearPlan> plans;
  for (const GemmTile& tile : kTiles) {
    if (tile.fits(info)) plans.push_back(make_plan(family, problem, tile));
  }
  return plans;
}

}  // namespace q8ta::kernels
