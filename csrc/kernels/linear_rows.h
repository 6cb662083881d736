#pragma once

#include "kernels/linear_plan.h"

namespace q8ta::kernels {

/// Whether shaders/linear_rows.comp can compute the problem on a device.
bool linear_rows_fits(const vulkan::DeviceInfo& info, const KernelFamily& family,
                      const LinearProblem& problem);

/// Whether it is the fastest kernel for the problem, given that it fits.
bool linear_rows_is_fastest(const vulkan::DeviceInfo& info, const LinearProblem& problem);

/// shaders/linear_rows.comp
LinearPlan plan_linear_rows(const vulkan::DeviceInfo& info, const KernelFamily& family,
                            const LinearProblem& problem);

}  // namespace q8ta::kernels
