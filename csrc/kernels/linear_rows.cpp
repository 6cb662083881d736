#include "kernels/linear_rows.h"

#include <algorithm>

#include "kernels/layout.h"
#include "kernels/workgroup.h"
#include "vulkan/shader.h"

namespace q8ta::kernels {
namespace {

constexpr uint32_t kSums = 32;     // shaders/linear_rows.comp: SUMS
constexpr uint32_t kMostRows = 8;  // with 16, cooperative matrices and the plain GEMM are faster
constexpr uint32_t kMostChunks = 4;
constexpr uint32_t kMostSplit = 8;

/// Specialization constants of shaders/linear_rows.comp.
struct RowsShape {
  uint32_t threads, lanes, split, chunks, x_rows, batches;

  uint32_t outputs() const { return threads / lanes / split * batches * (kSums / x_rows); }
};

/// How often a subgroup with one chunk a lane fits into K.
uint32_t subgroup_chunks(const vulkan::DeviceInfo& info, const LinearProblem& problem) {
  return static_cast<uint32_t>(ceil_div(padded_row_bytes(problem.K) / 16, info.subgroup_size));
}

RowsShape choose_shape(const vulkan::DeviceInfo& info, const LinearProblem& problem) {
  const uint32_t needed = subgroup_chunks(info, problem);
  RowsShape shape{};
  shape.lanes = info.subgroup_size;
  shape.x_rows = problem.M <= 4 ? 4 : 8;
  // x takes 4 * x_rows * chunks registers. On an H200, microseconds, the best of up to 90 variants:
  // 4x4096x11008 14.9 (GEMV 16.1), 8x4096x4096 8.8 (cooperative matrices 10.5), 8x4096x11008 18.3 (18.5),
  // 8x2048x2048 5.1, 8x8192x8192 22.4.
  if (needed <= 2) {
    shape.chunks = needed;
  } else if (needed <= 4) {
    shape.chunks = 2;
  } else if (shape.x_rows == 8) {
    shape.chunks = needed <= 8 ? 4 : 2;
  } else {
    shape.chunks = needed <= 8 ? 2 : 4;
  }
  if (shape.chunks * kMostSplit < needed) shape.chunks = kMostChunks;
  shape.split = 1;
  while (shape.split * shape.chunks < needed) shape.split *= 2;
  shape.threads = std::max(64U, shape.split * shape.lanes);
  shape.batches = 1;
  if (shape.x_rows == 8 && needed > 8) {
    shape.batches = 8;
  } else if (shape.x_rows == 8 && needed > 4) {
    shape.batches = problem.N > 8192 ? 3 : 2;
  }
  while (shape.outputs() % 4 != 0) shape.batches *= 2;
  return shape;
}

}  // namespace

bool linear_rows_fits(const vulkan::DeviceInfo& info, const KernelFamily& family,
                      const LinearProblem& problem) {
  if (!family.subgroup || !info.subgroup_shuffle || problem.M > kMostRows) return false;
  if (vulkan::find_shader(family.int_dot ? "linear_rows.int_dot" : "linear_rows.plain") == nullptr)
    return false;
  if (info.subgroup_size < 8 || info.subgroup_size > 64) return false;
  if (subgroup_chunks(info, problem) > kMostChunks * kMostSplit) return false;
  const RowsShape shape = choose_shape(info, problem);
  return subgroups_fit(info, shape.threads / shape.lanes, 0);
}

bool linear_rows_is_fastest(const vulkan::DeviceInfo& info, const LinearProblem& problem) {
  if (info.software()) return false;  // ten times slower than the GEMV on lavapipe
  return problem.M > 4 || (problem.M > 2 && problem.N > 8192);
}

LinearPlan plan_linear_rows(const vulkan::DeviceInfo& info, const KernelFamily& family,
                            const LinearProblem& problem) {
  const RowsShape shape = choose_shape(info, problem);
  LinearPlan plan;
  plan.spec.shader = family.int_dot ? "linear_rows.int_dot" : "linear_rows.plain";
  plan.spec.set_constants({shape.threads, problem.float_output ? 1U : 0U, shape.lanes, shape.split,
                           shape.chunks, shape.x_rows, shape.batches});
  plan.spec.requires_subgroup_size = true;
  plan.tile_m = problem.M;
  plan.tile_n = shape.outputs();
  plan.workgroups = static_cast<uint32_t>(ceil_div(problem.N, shape.outputs()));
  static constexpr const char* kNames[2][2] = {{"linear_rows/plain", "linear_rows/plain/float32"},
                                               {"linear_rows/int_dot", "linear_rows/int_dot/float32"}};
  plan.kernel = kNames[family.int_dot][problem.float_output];
  return plan;
}

}  // namespace q8ta::kernels
