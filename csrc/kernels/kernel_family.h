#pragma once

#include <string>

#include "vulkan/device_info.h"
#include "vulkan/selection.h"

namespace q8ta::kernels {

/// Which of the alternative instructions the kernels use on a device.
struct KernelFamily {
  bool int_dot = false;   ///< packed dot product, else plain integer arithmetic
  bool subgroup = false;  ///< GEMV reduces by subgroupAdd, else by a tree in shared memory

  std::string gemv_name() const;
  std::string gemm_name() const;
};

KernelFamily choose_family(const vulkan::DeviceInfo& info, const vulkan::DisabledFeatures& disabled);

}  // namespace q8ta::kernels
