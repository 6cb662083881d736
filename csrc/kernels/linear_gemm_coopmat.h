#pragma once

#include <optional>
#include <vector>

#include "kernels/linear_plan.h"

namespace q8ta::kernels {

/// The shape of cooperative matrices to use on a device; empty if it has none that the kernel can use.
std::optional<vulkan::CooperativeMatrixShape> choose_cooperative_matrix(const vulkan::DeviceInfo& info);

/// shaders/linear_gemm_coopmat.comp
LinearPlan plan_linear_gemm_coopmat(const vulkan::DeviceInfo& info, const KernelFamily& family,
                                    const LinearProblem& problem);

/// What shows whether lanes can finish the sums that they hold (KernelFamily::own_sums): a plan that relies
/// on it and a problem for it.
struct OwnSumsTrial {
  LinearPlan plan;
  LinearProblem problem;
};

/// Empty if no tile relies on it.
std::optional<OwnSumsTrial> own_sums_trial(const vulkan::DeviceInfo& info, const KernelFamily& family);

/// Its tiles that fit the device and can read weights in the problem's order.
std::vector<LinearPlan> linear_gemm_coopmat_candidates(const vulkan::DeviceInfo& info,
                                                       const KernelFamily& family,
                                                       const LinearProblem& problem);

}  // namespace q8ta::kernels
