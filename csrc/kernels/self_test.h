#pragma once

#include <string>

#include "kernels/linear_plan.h"
#include "vulkan/device.h"

namespace q8ta::kernels {

/// Runs a plan on random numbers and compares every bit of y with the host kernel's. Of the problem only the
/// sizes, float_output and the order of the weights count. Returns what differs; empty if nothing does.
std::string find_difference(vulkan::Device& device, const LinearPlan& plan, const LinearProblem& problem);

/// The same with the same pipeline on a part of the problem, about four workgroups.
std::string find_difference_quickly(vulkan::Device& device, const LinearPlan& plan,
                                    const LinearProblem& problem);

}  // namespace q8ta::kernels
