#pragma once

#include "kernels/linear_plan.h"

namespace q8ta::kernels {

/// Whether shaders/linear_rows_coopmat.comp can compute the problem on the device.
bool linear_rows_coopmat_fits(const vulkan::DeviceInfo& info, const KernelFamily& family,
                              const LinearProblem& problem);

/// Whether it is the fastest kernel for the problem, where it fits.
bool linear_rows_coopmat_is_fastest(const LinearProblem& problem);

/// For a problem that fits.
LinearPlan plan_linear_rows_coopmat(const vulkan::DeviceInfo& info, const KernelFamily& family,
                                    const LinearProblem& problem);

}  // namespace q8ta::kernels
