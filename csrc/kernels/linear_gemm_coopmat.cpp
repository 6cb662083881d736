#include "kernels/linear_gemm_coopmat.h"

#include <algorithm>
#include <array>
#include <limits>
#include <string_view>

#include "kernels/linear_gemm.h"
#include "kernels/workgroup.h"

namespace q8ta::kernels {
namespace {

/// shaders/linear_gemm_coopmat.comp for tiles of so many matrices along K; empty if there is none.
std::string_view shader_for_steps(uint32_t steps) {
  switch (steps) {
    case 2:
      return "linear_gemm_coopmat.2_steps";
    case 4:
      return "linear_gemm_coopmat.4_steps";
    case 8:
      return "linear_gemm_coopmat.8_steps";
    default:
      return {};
  }
}

/// Specialization constants of shaders/linear_gemm_coopmat.comp.
struct MatrixTile {
  uint32_t tile_m, tile_n, tile_k, subgroups_m, subgroups_n, slices;
  bool streamed;      // unless weights are in tiles: that costs 1 to 3 % there
  uint32_t rotation;  // tiles along K from one workgroup's start to the next's

  bool operator==(const MatrixTile&) const = default;
  uint32_t subgroups() const { return subgroups_m * subgroups_n * slices; }
  uint32_t steps(const vulkan::CooperativeMatrixShape& matrix) const { return tile_k / (matrix.K * slices); }

  uint32_t shared_bytes(const vulkan::CooperativeMatrixShape& matrix) const {
    const uint32_t tiles = (tile_m + tile_n) * (tile_k + 16);
    const uint32_t strips = subgroups() * matrix.M * (tile_n / subgroups_n + 8) * 4;
    return std::max(tiles, strips);
  }

  bool fits(const vulkan::DeviceInfo& info, const vulkan::CooperativeMatrixShape& matrix) const {
    return tile_m / subgroups_m % matrix.M == 0 && tile_n / subgroups_n % matrix.N == 0 &&
           tile_k % (matrix.K * slices) == 0 && !shader_for_steps(steps(matrix)).empty() &&
           subgroups_fit(info, subgroups(), shared_bytes(matrix));
  }

  /// Whether lanes can finish the sums that they hold, if those are where NVIDIA's are.
  bool can_own_sums(const vulkan::CooperativeMatrixShape& matrix) const {
    const uint32_t columns = tile_n / subgroups_n;
    return matrix.M == 16 && matrix.N == 16 && slices == 1 && (columns == 32 || columns == 64);
  }
};

constexpr uint32_t kOwnSumsColumns = 16;  // N is a multiple of them then

/// Multiplications from which a second copy of the weights, in tiles, is worth its memory. On an H200
/// 2048^3, just as many, takes 27.8 us with it and 31.2 without; smaller products were not measured.
constexpr uint64_t kWorthTiles = uint64_t{1} << 33U;

// Found on an H200, the best of hundreds of variants for each shape; microseconds with weights from memory,
// in brackets with weights in tiles. What it gave at 4096^3, where the first kernel took 249: another start
// along K in each workgroup (5), reads that pass by the first cache (9), sums that lanes finish themselves
// (12), weights in tiles (16), loads dealt out among the products (12), steps written out (10). Two tiles
// ahead in registers, words of later tiles read ahead into the cache, two buffers in shared memory, and two
// workgroups a multiprocessor were no better. x in tiles, too, which layers behind each other could exchange,
// took 0 to 0.3 % off up to 1024x4096x4096, 1 % at 4096^3 and 3 % at 2048x8192x8192: they exchange rows,
// which everything else reads.
constexpr MatrixTile kHuge{128, 256, 64, 2, 4, 1, true, 10};    // 4096^3 211 (188), 1024x4096x4096 59 (49.2)
constexpr MatrixTile kLarge{128, 128, 128, 2, 4, 1, false, 8};  // 1024x2048x2048 18.5, 512x4096x4096 32.4
constexpr MatrixTile kTall{128, 64, 128, 2, 2, 1, false, 4};    // 1024^3 8.5, 256x1024x4096 9.6
constexpr MatrixTile kMedium{64, 64, 256, 2, 2, 1, false, 4};   // 256x2048x2048 10.6
constexpr MatrixTile kMediumSlices{64, 64, 256, 2, 2, 2, false, 5};  // 10.9; for matrices of 16 bytes of K
constexpr MatrixTile kSmall{32, 64, 256, 1, 2, 2, false, 4};         // 128x4096x2048 13.5
constexpr MatrixTile kRows32Wide{32, 128, 256, 1, 4, 2, false, 5};   // 32x4096x11008 22.4
constexpr MatrixTile kRows32{32, 32, 512, 1, 2, 4, false, 0};        // 128x4096x1024 10.6, 32x4096x4096 11.8
constexpr MatrixTile kRows16Wide{16, 32, 256, 1, 2, 4, false, 0};    // 16x4096x11008 18.6
constexpr MatrixTile kRows16{16, 16, 512, 1, 1, 8, false, 0};        // 16x4096x4096 10.5, 16x4096x11008 24

constexpr std::array<MatrixTile, 10> kTiles{
    {kRows16Wide, kRows16, kRows32Wide, kRows32, kHuge, kLarge, kTall, kMedium, kMediumSlices, kSmall}};

/// A tile to use for problems of at most `rows` rows that it cuts into at least `workgroups`.
struct FewRowsChoice {
  MatrixTile tile;
  uint32_t rows;
  int64_t workgroups;
};
constexpr std::array<FewRowsChoice, 4> kFewRowsChoices{
    {{kRows16Wide, 16, 2 * kFillingWorkgroups}, {kRows16, 16, 0}, {kRows32Wide, 32, 80}, {kRows32, 32, 0}}};

struct PacedTile {
  MatrixTile tile;
  TilePace pace;
};

// From 1,800 products of 64 to 3072 rows, K of 512 to 8192 and N of 512 to 11008. For 186 shapes the tile so
// chosen takes 0.8 % longer than the fastest of 13, 12 % at worst. By the largest tile of which there are
// kFillingWorkgroups it was 18 %, and 85 at worst. There are no other products to judge it by.
constexpr std::array<PacedTile, 7> kPacedTiles{{
    {kHuge, {3.8, 13.2}},
    {kLarge, {3.0, 6.75}},
    {kTall, {1.85, 5.05}},
    {kMedium, {2.0, 3.05}},
    {kMediumSlices, {2.5, 3.05}},
    {kSmall, {2.05, 2.1}},
    {kRows32, {1.9, 1.45}},
}};
constexpr TilePace kHugeInTiles{2.6, 11.8};

bool worth_tiles(const LinearProblem& problem) {
  return uint64_t{problem.M} * problem.K * problem.N >= kWorthTiles;
}

/// Whether the kernel can take weights from PackOrder::tiles: a tile is one block along K and some blocks of
/// rows, and the chunks that a thread takes follow the order of the block's.
bool can_read_tiles(const MatrixTile& tile, bool own_sums, uint32_t threads) {
  constexpr uint32_t kSide = kTileSide;
  constexpr uint32_t kChunks = kSide * kSide / 16;
  return own_sums && tile.tile_k == kSide && tile.tile_n % kSide == 0 &&
         (kChunks % threads == 0 || threads % kChunks == 0);
}

/// At least one of kTiles must fit.
MatrixTile choose_tile(const vulkan::DeviceInfo& info, const vulkan::CooperativeMatrixShape& matrix,
                       const LinearProblem& problem) {
  for (const FewRowsChoice& choice : kFewRowsChoices) {
    const MatrixTile& tile = choice.tile;
    if (tile.fits(info, matrix) && problem.M <= choice.rows &&
        tile_count(problem, tile.tile_m, tile.tile_n) >= choice.workgroups) {
      return tile;
    }
  }
  const MatrixTile* fastest = nullptr;
  double shortest = std::numeric_limits<double>::infinity();
  for (const auto& [tile, pace] : kPacedTiles) {
    if (!tile.fits(info, matrix)) continue;
    const bool in_tiles = tile == kHuge && worth_tiles(problem);
    const double time = tiled_time(problem, tile.tile_m, tile.tile_n, in_tiles ? kHugeInTiles : pace);
    if (time < shortest) {
      fastest = &tile;
      shortest = time;
    }
  }
  if (fastest != nullptr) return *fastest;
  return *std::find_if(kTiles.begin(), kTiles.end(),
                       [&](const MatrixTile& tile) { return tile.fits(info, matrix); });
}

/// Empty if the tile cannot read weights in the problem's order; it always can if they lie in rows.
std::optional<LinearPlan> make_plan(const vulkan::DeviceInfo& info, const KernelFamily& family,
                                    const LinearProblem& problem, const MatrixTile& tile) {
  const vulkan::CooperativeMatrixShape& matrix = *family.matrix;
  const uint32_t threads = tile.subgroups() * info.subgroup_size;
  const bool k_tail = padded_row_bytes(problem.K) % tile.tile_k != 0;
  const bool inside = problem.M % tile.tile_m == 0 && problem.N % tile.tile_n == 0;
  const bool own_sums = family.own_sums && tile.can_own_sums(matrix) && problem.N % kOwnSumsColumns == 0;
  const bool reads_tiles = can_read_tiles(tile, own_sums, threads);
  const bool in_tiles = problem.weight_order == PackOrder::tiles;
  if (in_tiles && !reads_tiles) return std::nullopt;
  LinearPlan plan;
  plan.spec.shader = shader_for_steps(tile.steps(matrix));
  plan.spec.set_constants(
      {threads, problem.float_output ? 1U : 0U, k_tail ? 1U : 0U, info.subgroup_size, matrix.M, matrix.N,
       matrix.K, tile.tile_m, tile.tile_n, tile.tile_k, tile.subgroups_m, tile.subgroups_n, tile.slices,
       inside ? 1U : 0U, tile.streamed && !in_tiles ? 1U : 0U, tile.rotation, in_tiles ? 1U : 0U,
       own_sums ? 1U : 0U, bands_of_columns(problem, tile.tile_m, tile.tile_n) ? 1U : 0U});
  // k_tail, inside, streamed, in_tiles, own_sums, bands_of_columns
  plan.problem_constants |= 1U << 2U | 1U << 13U | 1U << 14U | 1U << 16U | 1U << 17U | 1U << 18U;
  plan.whole_m = inside ? tile.tile_m : 1;
  plan.whole_n = inside ? tile.tile_n : own_sums ? kOwnSumsColumns : 1;
  plan.spec.requires_subgroup_size = true;
  plan.tile_m = tile.tile_m;
  plan.tile_n = tile.tile_n;
  plan.workgroups = static_cast<uint32_t>(tile_count(problem, tile.tile_m, tile.tile_n));
  plan.kernel = family.gemm_name(problem.float_output);
  plan.faster_in_tiles = !in_tiles && reads_tiles && worth_tiles(problem);
  return plan;
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
  return *make_plan(info, family, problem, choose_tile(info, *family.matrix, problem));
}

std::optional<OwnSumsTrial> own_sums_trial(const vulkan::DeviceInfo& info, const KernelFamily& family) {
  const vulkan::CooperativeMatrixShape& matrix = *family.matrix;
  const auto tile = std::find_if(kTiles.begin(), kTiles.end(), [&](const MatrixTile& each) {
    return each.fits(info, matrix) && each.can_own_sums(matrix);
  });
  if (tile == kTiles.end()) return std::nullopt;
  LinearProblem problem;
  problem.M = tile->tile_m;
  problem.N = tile->tile_n;
  problem.K = 3 * tile->tile_k;
  return OwnSumsTrial{*make_plan(info, family, problem, *tile), problem};
}

std::vector<LinearPlan> linear_gemm_coopmat_candidates(const vulkan::DeviceInfo& info,
                                                       const KernelFamily& family,
                                                       const LinearProblem& problem) {
  std::vector<LinearPlan> plans;
  for (const MatrixTile& tile : kTiles) {
    if (!tile.fits(info, *family.matrix)) continue;
    if (auto plan = make_plan(info, family, problem, tile)) plans.push_back(*plan);
  }
  return plans;
}

}  // namespace q8ta::kernels
