#pragma once

#include <cstddef>
#include <span>

#include "kernels/linear_plan.h"
#include "vulkan/device.h"

namespace q8ta::kernels {

/// The plan that won, and what it took.
struct Measured {
  size_t plan = 0;  ///< its index
  double us = 0;
};

/// Measures plans of one problem on the device: weights from memory rather than from a cache, about two
/// seconds at most. The first plan, which is the one that is used anyway, wins over others that are hardly
/// faster.
Measured find_fastest(vulkan::Device& device, std::span<const LinearPlan> plans,
                      const LinearProblem& problem);

}  // namespace q8ta::kernels
