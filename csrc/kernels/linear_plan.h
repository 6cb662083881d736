#pragma once

#include <cstdint>

#include "kernels/kernel_family.h"
#include "kernels/linear_types.h"
#include "vulkan/device_info.h"
#include "vulkan/pipeline.h"

namespace q8ta::kernels {

/// Which shader computes a problem, how it is specialized, and how many workgroups that takes.
///
/// Every kernel reads x and weights as rows of padded_row_bytes(K), zero behind K, and writes PACKED_INT8_4W
/// (row-major bytes if N % 4 == 0) or row-major float32. Some can read weights in PackOrder::tiles instead.
struct LinearPlan {
  vulkan::PipelineSpec spec;
  uint32_t workgroups = 0;
  const char* kernel = "";  ///< for the profile
  uint32_t tile_m = 0;      ///< rows and columns of y that a workgroup computes
  uint32_t tile_n = 0;
  uint32_t whole_m = 1;  ///< of what the M and N of every problem for this pipeline are multiples
  uint32_t whole_n = 1;
  uint32_t problem_constants = 1U << 1U;  ///< bits of the constants that follow from the problem
  bool faster_in_tiles = false;           ///< the same tile is, of weights in PackOrder::tiles
};

/// The fastest plan that is known for the device's kind and the problem's M, K, N, of weights in rows.
LinearPlan plan_linear(const vulkan::DeviceInfo& info, const KernelFamily& family,
                       const LinearProblem& problem);

}  // namespace q8ta::kernels
