#include "kernels/linear_rows_coopmat.h"

#include <algorithm>
#include <optional>

#include "kernels/layout.h"
#include "kernels/linear_gemm.h"
#include "kernels/workgroup.h"
#include "vulkan/shader.h"

namespace q8ta::kernels {
namespace {

constexpr uint32_t kMostRows = 32;
constexpr uint32_t kLeastSubgroups = 4;
constexpr uint32_t kMostSubgroups = 8;
constexpr uint32_t kWorkgroups = 128;  // no more, up to so many columns of y, since each reads x
constexpr uint32_t kMostBlocks = 8;    // of columns that the shader has written out

/// Specialization constants of shaders/linear_rows_coopmat.comp.
struct Shape {
  uint32_t subgroups, x_rows, slice_bytes, pieces, blocks;
};

/// Microseconds on an H200, the best of 4,000 variants, in brackets the kernel that was the fastest before:
/// 8x4096x4096 8.2 (8.7), 8x4096x11008 15.8 (17.0), 16x4096x4096 8.0 (9.6), 16x4096x11008 15.9 (18.4),
/// 32x4096x4096 9.5 (10.4), 32x4096x11008 17.9 (20.4). With 2048x8192 slices of 256 bytes are 3 to 6 % faster
/// than half as many of 512.
std::optional<Shape> choose_shape(const LinearProblem& problem,
                                  const vulkan::CooperativeMatrixShape& matrix) {
  const auto row_bytes = static_cast<uint32_t>(padded_row_bytes(problem.K));
  Shape shape{};
  for (const uint32_t slice_bytes : {256U, 512U}) {  // of K, which a subgroup's registers hold of x
    const auto subgroups = static_cast<uint32_t>(ceil_div(row_bytes, slice_bytes));
    if (subgroups < kLeastSubgroups || subgroups > kMostSubgroups) continue;
    shape.slice_bytes = slice_bytes;
    shape.subgroups = subgroups;
    break;
  }
  if (shape.subgroups == 0) return std::nullopt;
  shape.x_rows = problem.M <= 16 ? 16 : 32;
  const int64_t blocks = ceil_div(problem.N, matrix.N);
  shape.blocks = std::min(static_cast<uint32_t>(ceil_div(blocks, kWorkgroups)), kMostBlocks);
  shape.pieces = shape.x_rows == 16 ? 2 : shape.slice_bytes / 128;
  return shape;
}

uint32_t shared_bytes(const Shape& shape) {
  const uint32_t piece_row = shape.slice_bytes / shape.pieces + 16;
  return shape.subgroups * (16 * piece_row + shape.x_rows * (16 + 4) * 4);
}

}  // namespace

bool linear_rows_coopmat_fits(const vulkan::DeviceInfo& info, const KernelFamily& family,
                              const LinearProblem& problem) {
  if (!family.matrix || problem.M > kMostRows) return false;
  if (vulkan::find_shader("linear_rows_coopmat") == nullptr) return false;
  const vulkan::CooperativeMatrixShape& matrix = *family.matrix;
  if (matrix.M != 16 || matrix.N != 16 || matrix.K > 128 || info.subgroup_size != 32) return false;
  const std::optional<Shape> shape = choose_shape(problem, matrix);
  return shape && subgroups_fit(info, shape->subgroups, shared_bytes(*shape));
}

bool linear_rows_coopmat_is_fastest(const LinearProblem& problem) {
  const bool fills = ceil_div(problem.N, 16) >= kFillingWorkgroups;
  const bool large = problem.N > 8192 || (problem.N >= 4096 && problem.K > 2048);
  return fills && (problem.M > 8 || (problem.M > 4 && large));
}

LinearPlan plan_linear_rows_coopmat(const vulkan::DeviceInfo& info, const KernelFamily& family,
                                    const LinearProblem& problem) {
  const vulkan::CooperativeMatrixShape& matrix = *family.matrix;
  const Shape shape = *choose_shape(problem, matrix);
  const bool whole = problem.N % matrix.N == 0;
  LinearPlan plan;
  plan.spec.shader = "linear_rows_coopmat";
  plan.spec.stays_in_bindings = true;
  plan.spec.set_constants({shape.subgroups * info.subgroup_size, problem.float_output ? 1U : 0U,
                           info.subgroup_size, matrix.M, matrix.N, matrix.K, shape.x_rows,
                           shape.slice_bytes / matrix.K, shape.pieces, shape.blocks, whole ? 1U : 0U});
  plan.problem_constants |= 1U << 10U;  // whole
  plan.whole_n = whole ? matrix.N : 1;
  plan.spec.requires_subgroup_size = true;
  plan.tile_m = problem.M;
  plan.tile_n = shape.blocks * matrix.N;
  plan.workgroups = static_cast<uint32_t>(ceil_div(problem.N, plan.tile_n));
  plan.kernel = problem.float_output ? "linear_rows/coopmat/float32" : "linear_rows/coopmat";
  return plan;
}

}  // namespace q8ta::kernels
