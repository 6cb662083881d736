#pragma once

#include "kernels/kernel_family.h"
#include "kernels/linear_types.h"
#include "vulkan/stream.h"

namespace q8ta::kernels {

/// Columns of a weight panel; N is padded to this in the weights (shaders/linear_gemm.comp).
inline constexpr uint32_t kPanelColumns = 64;

/// Records shaders/linear_gemm.comp: x is 4H4W, weights are PackOrder::gemm_weights, y is 4H4W (or float32,
/// row-major).
void record_linear_gemm(vulkan::Stream& stream, const KernelFamily& family, const LinearProblem& problem,
                        const LinearBuffers& buffers);

}  // namespace q8ta::kernels
