#pragma once

#include "kernels/kernel_family.h"
#include "kernels/linear_types.h"
#include "vulkan/stream.h"

namespace q8ta::kernels {

/// K is padded to this many bytes in the weights and in what may be read of x.
inline constexpr uint32_t kGemvChunk = 16;

/// True if a workgroup can be made of whole subgroups within the device's limits.
bool subgroup_gemv_fits(const vulkan::DeviceInfo& info);

/// Records shaders/linear_gemv.comp: x is 4W, weights are PackOrder::gemv_weights, y is 4W (or float32).
void record_linear_gemv(vulkan::Stream& stream, const KernelFamily& family, const LinearProblem& problem,
                        const LinearBuffers& buffers);

}  // namespace q8ta::kernels
