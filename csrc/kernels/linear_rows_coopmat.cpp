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
constexpr uint32_t kWorkgroups = 128;  // for which x is read, at most

/// Specialization constants of shaders/linear_rows_coopmat.comp.
struct Shape {
  uint32_t subgroups, x_rows, slice_bytes, pieces, blocks, group;
  bool streamed;
};

/// Microseconds on an H200, the best of 2,000 variants, in brackets the kernel that was the fastest before:
/// 8x4096x11008 17.0 (18.3), 16x4096x4096 9.4 (10.5), 16x4096x11008 17.7 (18.6), 32x4096x4096 10.4 (11.8),
/// 32x4096x11008 20.2 (22.4).
std::optional<Shape> choose_shape(const LinearProblem& problem,
                                  const vulkan::CooperativeMatrixShape& matrix) {
  const auto row_bytes = static_cast<uint32_t>(padded_row_bytes(problem.K));
  Shape shape{};
  for (const uint32_t slice_bytes : {512U, 256U}) {  // of K, which a subgroup's registers hold of x
    const auto subgroups = static_cast<uint32_t>(ceil_div(row_bytes, slice_bytes));
    if (subgroups < kLeastSubgroups || subgroups > kMostSubgroups) continue;
    shape.slice_bytes = slice_bytes;
    shape.subgroups = subgroups;
    break;
  }
  if (shape.subgroups == 0) return std::nullopt;
  shape.x_rows = problem.M <= 16 ? 16 : 32;
  const int64_t blocks = ceil_div(problem.N, matrix.N);
  shape.blocks = static_cast<uint32_t>(ceil_div(blocks, kWorkgroups));
  shape.pieces = shape.slice_bytes / (shape.x_rows == 16 ? 256 : 128);
  const bool roomy = shape.x_rows == 16;
  shape.group = roomy || shape.blocks > 2 ? std::min(shape.blocks, 2U) : 1;
  shape.streamed = !roomy || shape.blocks > 2;
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
  return fills && (problem.M > 8 || (problem.M > 4 && problem.N > 8192));
}

LinearPlan plan_linear_rows_coopmat(const vulkan::DeviceInfo& info, const KernelFamily& family,
                                    const LinearProblem& problem) {
  const vulkan::CooperativeMatrixShape& matrix = *family.matrix;
  const Shape shape = *choose_shape(problem, matrix);
  LinearPlan plan;
  plan.spec.shader = "linear_rows_coopmat";
  plan.spec.set_constants({shape.subgroups * info.subgroup_size, problem.float_output ? 1U : 0U,
                           info.subgroup_size, matrix.M, matrix.N, matrix.K, shape.x_rows,
                           shape.slice_bytes / matrix.K, shape.pieces, shape.blocks, shape.group,
                           shape.streamed ? 1U : 0U});
  plan.spec.requires_subgroup_size = true;
  plan.tile_m = problem.M;
  plan.tile_n = shape.blocks * matrix.N;
  plan.workgroups = static_cast<uint32_t>(ceil_div(problem.N, plan.tile_n));
  plan.kernel = problem.float_output ? "linear_rows/coopmat/float32" : "linear_rows/coopmat";
  return plan;
}

}  // namespace q8ta::kernels
