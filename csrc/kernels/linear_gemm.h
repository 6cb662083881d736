#pragma once

#include "kernels/kernel_family.h"
#include "kernels/linear_types.h"
#include "vulkan/recorder.h"

namespace q8ta::kernels {

/// Records shaders/linear_gemm.comp: x is 4H4W, weights are PackOrder::weights, y is 4H4W (or float32,
/// row-major).
void record_linear_gemm(vulkan::Recorder& recorder, const KernelFamily& family, const LinearProblem& problem,
                        const LinearBuffers& buffers);

}  // namespace q8ta::kernels
