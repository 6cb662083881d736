#pragma once

#include <cstdint>
#include <functional>

#include "kernels/kernel_family.h"
#include "kernels/linear_types.h"
#include "kernels/weights.h"
#include "vulkan/device.h"

namespace q8ta::kernels {

/// Linear between host memories: x [M, K] int8 and y [M, N] (int8, or float32 if problem.float_output) are
/// row-major. Splits the work so that bindings, staging memory and the time of one submission stay bounded,
/// and overlaps copies with the GPU. `output` is called once and returns y, when the GPU has started wherever
/// that is possible: what the caller does in it costs no time. Returns when y is written. problem.M is
/// ignored.
void run_linear(vulkan::Device& device, const KernelFamily& family, LinearProblem problem, int64_t M,
                const int8_t* x, const DeviceWeights& weights, const DeviceChannels& channels,
                const std::function<void*()>& output);

}  // namespace q8ta::kernels
