#include "kernels/linear_gemv.h"

#include <algorithm>

#include "kernels/layout.h"
#include "kernels/workgroup.h"

namespace q8ta::kernels {
namespace {

constexpr uint32_t kTreeThreads = 64;
constexpr uint32_t kTreeRows = 4;

uint32_t subgroup_threads(const vulkan::DeviceInfo& info) {
  constexpr uint32_t kMost = 256;  // SwiftShader allows no more
  return std::clamp(8 * info.subgroup_size, kTreeThreads, kMost);
}

/// Specialization constants of shaders/linear_gemv.comp.
struct GemvShape {
  uint32_t threads, rows, split, unroll, lanes;

  uint32_t outputs() const { return threads / lanes / split * rows; }
};

GemvShape choose_shape(const vulkan::DeviceInfo& info, const KernelFamily& family,
                       const LinearProblem& problem) {
  if (!family.subgroup) return {kTreeThreads, kTreeRows, 1, 1, kTreeThreads};
  const uint32_t lanes = info.subgroup_size;
  // Bytes in flight are what counts, and workgroups enough for every compute unit. Microseconds on an H200
  // (one row, weights from memory), this choice / the best of 126 others: 1x512x512 3.2 / 3.2,
  // 1x2048x2048 4.3 / 4.3, 1x4096x4096 7.1 / 7.1, 1x512x9056 4.5 / 4.4, 1x4096x11008 13.5 / 13.5,
  // 1x8192x28672 55.1 / 55.1.
  GemvShape shape{subgroup_threads(info), 1, 2, 2, lanes};
  if (problem.M > 1) {
    shape.unroll = problem.M == 2 ? 4 : 1;
  } else if (problem.K < 64 * lanes) {  // too short to be shared
    shape.split = 1;
    shape.rows = problem.N > 8192 ? 2 : 1;
  } else if (problem.N > 16384) {
    shape = {shape.threads, 2, 4, 4, lanes};
  }
  while (shape.outputs() % 4 != 0 || shape.outputs() == 0) {  // whole words of four outputs
    if (shape.split > 1) {
      shape.split /= 2;
    } else {
      shape.rows *= 2;
    }
  }
  return shape;
}

LinearPlan make_plan(const KernelFamily& family, const LinearProblem& problem, const GemvShape& shape) {
  LinearPlan plan;
  plan.spec.shader = family.subgroup
                         ? (family.int_dot ? "linear_gemv.subgroup.int_dot" : "linear_gemv.subgroup.plain")
                         : (family.int_dot ? "linear_gemv.shared.int_dot" : "linear_gemv.shared.plain");
  plan.spec.set_constants({shape.threads, problem.float_output ? 1U : 0U, shape.rows, shape.split,
                           shape.unroll, problem.M, shape.lanes});
  plan.problem_constants |= 1U << 5U;  // M
  plan.spec.requires_subgroup_size = family.subgroup;
  plan.tile_m = problem.M;
  plan.tile_n = shape.outputs();
  plan.workgroups = static_cast<uint32_t>(ceil_div(problem.N, shape.outputs()));
  plan.kernel = family.gemv_name(problem.float_output);
  return plan;
}

/// Whether a shape is of use: whole words of outputs, at least one turn of its loop along K, and registers
/// for what a thread loads and sums.
bool worth_trying(const GemvShape& shape, const LinearProblem& problem) {
  constexpr uint32_t kMostRegisters = 160;
  if (shape.outputs() == 0 || shape.outputs() % 4 != 0) return false;
  const int64_t turn = int64_t{16} * shape.lanes * shape.split * shape.unroll;
  if (shape.split * shape.unroll > 1 && turn > padded_row_bytes(problem.K)) return false;
  const uint32_t loaded = 4 * shape.unroll * (shape.rows + problem.M);
  return loaded + shape.rows * problem.M <= kMostRegisters;
}

}  // namespace

bool subgroup_gemv_fits(const vulkan::DeviceInfo& info) {
  const uint32_t threads = subgroup_threads(info);
  return info.subgroup_size > 0 && threads % info.subgroup_size == 0 &&
         subgroups_fit(info, threads / info.subgroup_size, 0);
}

uint32_t gemv_rows(const KernelFamily& family) {
  // H200, 4096x4096, this kernel / cooperative matrices: 4 rows 8.1 / 10.2 us, 8 rows 10.0 / 9.8 us.
  if (!family.subgroup) return 1;
  return family.matrix ? 4 : 8;
}

LinearPlan plan_linear_gemv(const vulkan::DeviceInfo& info, const KernelFamily& family,
                            const LinearProblem& problem) {
  return make_plan(family, problem, choose_shape(info, family, problem));
}

std::vector<LinearPlan> linear_gemv_candidates(const vulkan::DeviceInfo& info, const KernelFamily& family,
                                               const LinearProblem& problem) {
  constexpr uint32_t kMostRows = 8;
  std::vector<LinearPlan> plans;
  if (!family.subgroup) {
    if (problem.M == 1) plans.push_back(plan_linear_gemv(info, family, problem));
    return plans;
  }
  if (problem.M > kMostRows) return plans;
  for (const uint32_t rows : {1U, 2U, 4U}) {
    for (const uint32_t split : {1U, 2U, 4U}) {
      for (const uint32_t unroll : {1U, 2U, 4U}) {
        const GemvShape shape{subgroup_threads(info), rows, split, unroll, info.subgroup_size};
        if (worth_trying(shape, problem)) plans.push_back(make_plan(family, problem, shape));
      }
    }
  }
  return plans;
}

}  // namespace q8ta::kernels
