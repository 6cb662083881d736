#pragma once

#include <string>
#include <vector>

#include "kernels/linear_plan.h"

namespace q8ta::kernels {

/// Every plan worth trying for a problem, of all kernels that the family allows and that can read weights in
/// its order: of tiles there may be none. Of weights in rows plan_linear's choice comes first.
std::vector<LinearPlan> linear_candidates(const vulkan::DeviceInfo& info, const KernelFamily& family,
                                          const LinearProblem& problem);

/// A plan's shader and tile, which are the same for all problems and orders of weights: "linear_gemm.int_dot
/// 256 8 2 64 1".
std::string variant_of(const LinearPlan& plan);

}  // namespace q8ta::kernels
