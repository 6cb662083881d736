#include "kernels/linear_gemm.h"

#include <array>

#include "kernels/workgroup.h"

namespace q8ta::kernels {
namespace {

constexpr uint32_t kThreadsN = 16;

/// Specialization constants of shaders/linear_gemm.comp.
struct GemmTile {
  uint32_t threads, rows, words, tile_k, unroll;
  TilePace pace;

  uint32_t tile_m() const { return threads / kThreadsN * rows; }
  uint32_t tile_n() const { return 4 * words * kThreadsN; }
  bool fits(const vulkan::DeviceInfo& info) const {
    const uint32_t shared_bytes = (tile_m() + tile_n()) * (tile_k + 16);
    return workgroup_fits(info, threads, shared_bytes);
  }
};

// From large, which read x and weights less often, to small; the last fits every device. The paces are from
// 900 products of 64 to 2048 rows, K of 1024 and 4096 and N of 512 to 4096: for 60 shapes the tile so chosen
// takes 1.3 % longer than the fastest of 17, 17 % at worst. By the largest of which there are
// kFillingWorkgroups, of the first and those that are not unrolled, it was 29 %, and 74 at worst.
// 1024x2048x2048 takes 91 us.
constexpr std::array<GemmTile, 7> kTiles{{
    {512, 4, 2, 128, 8, {3.1, 43.4}},  // 128 x 128
    {256, 8, 2, 64, 1, {3.3, 48.0}},
    {256, 4, 1, 128, 8, {1.05, 11.7}},  // 64 x 64
    {128, 8, 1, 64, 1, {1.2, 13.6}},
    {128, 4, 1, 128, 8, {0.4, 6.5}},   // 32 x 64
    {128, 2, 1, 128, 8, {0.35, 3.8}},  // 16 x 64
    {64, 4, 1, 64, 1, {0.4, 4.4}},
}};

/// Unrolled, a tile takes software drivers seconds to compile. They are faster with the largest tile of which
/// there are enough.
GemmTile choose_software_tile(const vulkan::DeviceInfo& info, const LinearProblem& problem) {
  for (const GemmTile& tile : kTiles) {
    if (tile.unroll == 1 && tile.fits(info) &&
        tile_count(problem, tile.tile_m(), tile.tile_n()) >= kFillingWorkgroups) {
      return tile;
    }
  }
  return kTiles.back();
}

GemmTile choose_tile(const vulkan::DeviceInfo& info, const LinearProblem& problem) {
  if (info.type == VK_PHYSICAL_DEVICE_TYPE_CPU) return choose_software_tile(info, problem);
  const GemmTile* fastest = &kTiles.back();
  const auto time = [&](const GemmTile& tile) {
    return tiled_time(problem, tile.tile_m(), tile.tile_n(), tile.pace);
  };
  for (const GemmTile& tile : kTiles) {
    if (tile.fits(info) && time(tile) < time(*fastest)) fastest = &tile;
  }
  return *fastest;
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
