#pragma once

#include <vector>

#include "kernels/layout.h"
#include "kernels/linear_plan.h"

namespace q8ta::kernels {

/// A GPU with fewer workgroups than this has idle compute units, so smaller tiles are chosen then.
inline constexpr int64_t kFillingWorkgroups = 112;

/// How many tiles cover y.
inline int64_t tile_count(const LinearProblem& problem, uint32_t tile_m, uint32_t tile_n) {
  return ceil_div(problem.M, tile_m) * ceil_div(problem.N, tile_n);
}

/// shaders/linear_gemm.comp
LinearPlan plan_linear_gemm(const vulkan::DeviceInfo& info, const KernelFamily& family,
                            const LinearProblem& problem);

/// Its tiles that fit the device.
std::vector<LinearPlan> linear_gemm_candidates(const vulkan::DeviceInfo& info, const KernelFamily& family,
                                               const LinearProblem& problem);

}  // namespace q8ta::kernels
