#pragma once

#include "kernels/linear_types.h"
#include "vulkan/pipeline.h"
#include "vulkan/recorder.h"

namespace q8ta::kernels {

/// Records a dispatch of one of the linear shaders. `spec` says which and with what constants; `K_blocks` is
/// what the shader counts along K.
void record_linear_dispatch(vulkan::Recorder& recorder, vulkan::PipelineSpec spec,
                            const LinearProblem& problem, const LinearBuffers& buffers, uint32_t K_blocks,
                            uint32_t workgroups, const char* kernel);

}  // namespace q8ta::kernels
