#pragma once

#include <optional>

#include "vulkan/device_info.h"
#include "vulkan/selection.h"

namespace q8ta::kernels {

/// Which of the alternative instructions the kernels use on a device.
struct KernelFamily {
  bool int_dot = false;   ///< packed dot product, else plain integer arithmetic
  bool subgroup = false;  ///< GEMV reduces by subgroupAdd, else by a tree in shared memory
  std::optional<vulkan::CooperativeMatrixShape>
      matrix;  ///< GEMM multiplies cooperative matrices of this shape
  /// Lanes hold the elements of a matrix of sums as NVIDIA's do. Vulkan does not say: LinearChoices finds
  /// out.
  bool own_sums = true;

  /// Names for profiles and `info`.
  const char* gemv_name(bool float_output = false) const;
  const char* gemm_name(bool float_output = false) const;  ///< of more rows than the GEMV takes
  const char* dot_gemm_name(bool float_output) const;      ///< without cooperative matrices
};

KernelFamily choose_family(const vulkan::DeviceInfo& info, const vulkan::DisabledFeatures& disabled);

}  // namespace q8ta::kernels
