#pragma once

#include "kernels/linear_plan.h"
#include "vulkan/recorder.h"

namespace q8ta::kernels {

/// Records the dispatch of a plan. The ranges of x and weights hold rows of weight_row_bytes(K); y is whole
/// words.
void record_linear_dispatch(vulkan::Recorder& recorder, const LinearPlan& plan, const LinearProblem& problem,
                            const LinearBuffers& buffers);

}  // namespace q8ta::kernels
