#pragma once

#include "kernels/kernel_family.h"
#include "kernels/linear_types.h"
#include "vulkan/recorder.h"

namespace q8ta::kernels {

/// True if a workgroup can be made of whole subgroups within the device's limits.
bool subgroup_gemv_fits(const vulkan::DeviceInfo& info);

/// Records shaders/linear_gemv.comp: x is 4W, readable up to weight_row_bytes(K), weights are
/// PackOrder::weights, y is 4W (or float32).
void record_linear_gemv(vulkan::Recorder& recorder, const KernelFamily& family, const LinearProblem& problem,
                        const LinearBuffers& buffers);

}  // namespace q8ta::kernels
