#pragma once

#include <vector>

#include "kernels/layout.h"
#include "kernels/linear_plan.h"

namespace q8ta::kernels {

/// A GPU with fewer workgroups than this has idle compute units, so smaller tiles are chosen then.
inline constexpr int64_t kFillingWorkgroups = 112;

/// Workgroups with large tiles that an H200 runs at once, one a multiprocessor.
inline constexpr int64_t kRunningWorkgroups = 132;

/// How many tiles cover y.
inline int64_t tile_count(const LinearProblem& problem, uint32_t tile_m, uint32_t tile_n) {
  return ceil_div(problem.M, tile_m) * ceil_div(problem.N, tile_n);
}

/// What as many workgroups as run at once take with a tile, in microseconds: `start` and, for each 1024 of K,
/// `per_1024`. Fitted to what products took on an H200, less 1.65 for the dispatch.
struct TilePace {
  double start, per_1024;
};

/// What a product takes with a tile. The last workgroups take as long as the first, however few there are:
/// one round of large tiles is faster than two of small ones.
inline double tiled_time(const LinearProblem& problem, uint32_t tile_m, uint32_t tile_n,
                         const TilePace& pace) {
  const int64_t rounds = ceil_div(tile_count(problem, tile_m, tile_n), kRunningWorkgroups);
  return static_cast<double>(rounds) * (pace.start + pace.per_1024 * problem.K / 1024);
}

/// Whether workgroups that run together share columns of y rather than rows (choose_tile in
/// shaders/include/linear_tiles.glsl). If a band of rows is more than an H200 runs at once and not all there
/// is: by cooperative matrices 4096x4096x11008 takes 505 us instead of 519 then, 2048x4096x5120 139 instead
/// of 143, 8192^3 1492 instead of 1503; but 4096^3 190 instead of 188.
inline bool bands_of_columns(const LinearProblem& problem, uint32_t tile_m, uint32_t tile_n) {
  constexpr int64_t kBandTiles = 8;
  return ceil_div(problem.M, tile_m) > kBandTiles &&
         ceil_div(problem.N, tile_n) * kBandTiles > kRunningWorkgroups;
}

/// shaders/linear_gemm.comp
LinearPlan plan_linear_gemm(const vulkan::DeviceInfo& info, const KernelFamily& family,
                            const LinearProblem& problem);

/// Its tiles that fit the device.
std::vector<LinearPlan> linear_gemm_candidates(const vulkan::DeviceInfo& info, const KernelFamily& family,
                                               const LinearProblem& problem);

}  // namespace q8ta::kernels
