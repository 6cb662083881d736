#include "kernels/kernel_family.h"

#include "kernels/linear_gemv.h"
#include "vulkan/shader.h"

namespace q8ta::kernels {

std::string KernelFamily::gemv_name() const {
  return std::string("linear_gemv/") + (subgroup ? "subgroup" : "shared") + (int_dot ? "/int_dot" : "/plain");
}

std::string KernelFamily::gemm_name() const {
  return std::string("linear_gemm") + (int_dot ? "/int_dot" : "/plain");
}

KernelFamily choose_family(const vulkan::DeviceInfo& info, const vulkan::DisabledFeatures& disabled) {
  KernelFamily family;
  // The build leaves the dot product out when its GLSL compiler cannot express it.
  family.int_dot = info.int_dot && !disabled.int_dot && vulkan::find_shader("linear_gemm.int_dot") != nullptr;
  family.subgroup = info.subgroup_arithmetic && !disabled.subgroup && subgroup_gemv_fits(info);
  return family;
}

}  // namespace q8ta::kernels
