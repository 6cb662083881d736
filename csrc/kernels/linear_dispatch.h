#pragma once

#include "kernels/linear_plan.h"
#include "vulkan/recorder.h"

namespace q8ta::kernels {

/// A plan whose pipeline is made.
struct LinearKernel {
  const vulkan::Pipeline* pipeline = nullptr;
  uint32_t workgroups = 0;
  const char* name = "";         ///< for the profile
  bool faster_in_tiles = false;  ///< LinearPlan's
};

LinearKernel make_linear_kernel(vulkan::Device& device, const LinearPlan& plan);

/// Records its dispatch. The range of x holds rows of padded_row_bytes(K), that of the weights whatever the
/// plan reads; y is whole words.
void record_linear_dispatch(vulkan::Recorder& recorder, const LinearKernel& kernel,
                            const LinearProblem& problem, const LinearBuffers& buffers);

}  // namespace q8ta::kernels
