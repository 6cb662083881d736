#include "kernels/linear_gemm_coopmat.h"

#include <algorithm>
#include <array>

#include "kernels/linear_gemm.h"

namespace q8ta::kernels {
namespace {

/// Specialization constants of shaders/linear_gemm_coopmat.comp.
struct MatrixTile {
  uint32_t tile_m, tile_n, tile_k, subgroups_m, subgroups_n, slices;

  uint32_t subgroups() const { return subgroups_m * subgroups_n * slices; }

  uint32_t shared_bytes(const vulkan::CooperativeMatrixShape& matrix) const {
    const uint32_t tiles = (tile_m + tile_n) * (tile_k + 16);
    const uint32_t strips = subgroups() * matrix.M * (tile_n / subgroups_n + 8) * 4;
    return std::max(tiles, strips);
  }

  bool fits(const vulkan::DeviceInfo& info, const vulkan::CooperativeMatrixShape& matrix) const {
    const uint32_t threads = subgroups() * info.subgroup_size;
    return tile_m / subgroups_m % matrix.M == 0 && tile_n / subgroups_n % matrix.N == 0 &&
           tile_k % (2 * matrix.K * slices) == 0 && subgroups() <= info.max_workgroup_subgroups &&
           threads <= info.limits.maxComputeWorkGroupInvocations &&
           threads <= info.limits.maxComputeWorkGroupSize[0] &&
           shared_bytes(matrix) <= info.limits.maxComputeSharedMemorySize;
  }
};

// Large tiles read x and weights less often, small ones and slices of K keep more compute units busy. Found
// on an H200 (microseconds, the best of about 100 variants each): 4096x4096x4096 241 with the first, 250 with
// the second; 1024x2048x2048 20.0 with the second; 256x2048x2048 10.9 with the third; 32 and 16 rows of
// 4096x4096 11.5 and 10.3 with the last two. Rows of 128 bytes and more of each matrix in a tile are as good
// as weights packed by tiles.
constexpr std::array<MatrixTile, 5> kTiles{{
    {128, 256, 64, 2, 4, 1},
    {128, 128, 128, 2, 4, 1},
    {64, 64, 256, 2, 2, 2},
    {32, 32, 512, 1, 2, 4},
    {16, 32, 512, 1, 1, 8},
}};

const MatrixTile* choose_tile(const vulkan::DeviceInfo& info, const vulkan::CooperativeMatrixShape& matrix,
                              const LinearProblem& problem) {
  const MatrixTile* smallest = nullptr;
  for (const MatrixTile& tile : kTiles) {
    if (!tile.fits(info, matrix)) continue;
    const bool half_empty = smallest != nullptr && problem.M <= smallest->tile_m / 2;
    if (smallest == nullptr || half_empty ||
        tile_count(problem, smallest->tile_m, smallest->tile_n) < kFillingWorkgroups) {
      smallest = &tile;
    }
  }
  return smallest;
}

}  // namespace

std::optional<vulkan::CooperativeMatrixShape> choose_cooperative_matrix(const vulkan::DeviceInfo& info) {
  if (!info.subgroup_arithmetic) return std::nullopt;  // the size of subgroups could not be relied on
  std::optional<vulkan::CooperativeMatrixShape> best;
  const auto multiplies = [](const vulkan::CooperativeMatrixShape& shape) {
    return shape.M * shape.N * shape.K;
  };
  for (const vulkan::CooperativeMatrixShape& shape : info.cooperative_matrix_int8) {
    const bool usable = std::any_of(kTiles.begin(), kTiles.end(),
                                    [&](const MatrixTile& tile) { return tile.fits(info, shape); });
    // Fragments are loaded from rows of 16-byte chunks, and sums stored in words of four.
    if (!usable || shape.K % 16 != 0 || shape.N % 4 != 0) continue;
    if (!best || multiplies(shape) > multiplies(*best)) best = shape;
  }
  return best;
}

LinearPlan plan_linear_gemm_coopmat(const vulkan::DeviceInfo& info, const KernelFamily& family,
                                    const LinearProblem& problem) {
  const vulkan::CooperativeMatrixShape& matrix = *family.matrix;
  const MatrixTile& tile = *choose_tile(info, matrix, problem);
  const bool k_tail = weight_row_bytes(problem.K) % tile.tile_k != 0;
  LinearPlan plan;
  plan.spec.shader = "linear_gemm_coopmat";
  plan.spec.set_constants({tile.subgroups() * info.subgroup_size, problem.float_output ? 1U : 0U,
                           k_tail ? 1U : 0U, info.subgroup_size, matrix.M, matrix.N, matrix.K, tile.tile_m,
                           tile.tile_n, tile.tile_k, tile.subgroups_m, tile.subgroups_n, tile.slices});
  plan.spec.requires_subgroup_size = true;
  plan.workgroups = static_cast<uint32_t>(tile_count(problem, tile.tile_m, tile.tile_n));
  plan.kernel = family.gemm_name(problem.float_output);
  return plan;
}

}  // namespace q8ta::kernels
