#pragma once

#include <vector>

#include "kernels/linear_plan.h"

namespace q8ta::kernels {

/// True if a workgroup can be made of whole subgroups within the device's limits.
bool subgroup_gemv_fits(const vulkan::DeviceInfo& info);

/// Up to this many rows of x are computed by the GEMV, which reads the weights once for all of them.
uint32_t gemv_rows(const KernelFamily& family);

/// shaders/linear_gemv.comp
LinearPlan plan_linear_gemv(const vulkan::DeviceInfo& info, const KernelFamily& family,
                            const LinearProblem& problem);

/// Its shapes that are worth trying for the problem.
std::vector<LinearPlan> linear_gemv_candidates(const vulkan::DeviceInfo& info, const KernelFamily& family,
                                               const LinearProblem& problem);

}  // namespace q8ta::kernels
