#include "kernels/linear_gemm.h"

#include <array>

namespace q8ta::kernels {
namespace {

constexpr uint32_t kThreadsN = 16;
constexpr uint32_t kTileK = 64;

/// Specialization constants of shaders/linear_gemm.comp.
struct GemmTile {
  uint32_t threads, rows, words;

  uint32_t tile_m() const { return threads / kThreadsN * rows; }
  uint32_t tile_n() const { return 4 * words * kThreadsN; }
};

GemmTile choose_tile(const LinearProblem& problem) {
  // From large, which read x and weights less often, to small. All fit into 32 KiB of shared memory.
  constexpr std::array<GemmTile, 3> kTiles{{{256, 8, 2}, {128, 8, 1}, {64, 4, 1}}};
  for (const GemmTile& tile : kTiles) {
    if (tile_count(problem, tile.tile_m(), tile.tile_n()) >= kFillingWorkgroups) return tile;
  }
  return kTiles.back();
}

}  // namespace

LinearPlan plan_linear_gemm(const KernelFamily& family, const LinearProblem& problem) {
  const GemmTile tile = choose_tile(problem);
  const bool k_tail = weight_row_bytes(problem.K) % kTileK != 0;
  LinearPlan plan;
  plan.spec.shader = family.int_dot ? "linear_gemm.int_dot" : "linear_gemm.plain";
  plan.spec.set_constants(
      {tile.threads, problem.float_output ? 1U : 0U, k_tail ? 1U : 0U, tile.rows, tile.words, kTileK});
  plan.workgroups = static_cast<uint32_t>(tile_count(problem, tile.tile_m(), tile.tile_n()));
  plan.kernel = family.dot_gemm_name(problem.float_output);
  return plan;
}

}  // namespace q8ta::kernels
