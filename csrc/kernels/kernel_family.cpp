#include "kernels/kernel_family.h"

#include "kernels/linear_gemm_coopmat.h"
#include "kernels/linear_gemv.h"
#include "vulkan/shader.h"

namespace q8ta::kernels {

const char* KernelFamily::gemv_name(bool float_output) const {
  static constexpr const char* kNames[2][2][2] = {
      {{"linear_gemv/shared/plain", "linear_gemv/shared/plain/float32"},
       {"linear_gemv/shared/int_dot", "linear_gemv/shared/int_dot/float32"}},
      {{"linear_gemv/subgroup/plain", "linear_gemv/subgroup/plain/float32"},
       {"linear_gemv/subgroup/int_dot", "linear_gemv/subgroup/int_dot/float32"}}};
  return kNames[subgroup][int_dot][float_output];
}

const char* KernelFamily::gemm_name(bool float_output) const {
  if (matrix) return float_output ? "linear_gemm/coopmat/float32" : "linear_gemm/coopmat";
  return dot_gemm_name(float_output);
}

const char* KernelFamily::dot_gemm_name(bool float_output) const {
  static constexpr const char* kNames[2][2] = {{"linear_gemm/plain", "linear_gemm/plain/float32"},
                                               {"linear_gemm/int_dot", "linear_gemm/int_dot/float32"}};
  return kNames[int_dot][float_output];
}

KernelFamily choose_family(const vulkan::DeviceInfo& info, const vulkan::DisabledFeatures& disabled) {
  // The build leaves out what its GLSL compiler cannot express. Looked up once: this runs for every op.
  static const bool has_int_dot = vulkan::find_shader("linear_gemm.int_dot") != nullptr;
  static const bool has_coopmat = vulkan::find_shader("linear_gemm_coopmat.2_steps") != nullptr;
  KernelFamily family;
  family.int_dot = info.int_dot && !disabled.int_dot && has_int_dot;
  family.subgroup = info.subgroup_arithmetic && !disabled.subgroup && subgroup_gemv_fits(info);
  if (!disabled.cooperative_matrix && has_coopmat) family.matrix = choose_cooperative_matrix(info);
  return family;
}

}  // namespace q8ta::kernels
