#include "kernels/linear_plan.h"

#include "kernels/linear_gemm.h"
#include "kernels/linear_gemm_coopmat.h"
#include "kernels/linear_gemv.h"
#include "kernels/linear_rows.h"
#include "kernels/linear_rows_coopmat.h"

namespace q8ta::kernels {

LinearPlan plan_linear(const vulkan::DeviceInfo& info, const KernelFamily& family,
                       const LinearProblem& problem) {
  if (linear_rows_coopmat_is_fastest(problem) && linear_rows_coopmat_fits(info, family, problem)) {
    return plan_linear_rows_coopmat(info, family, problem);
  }
  if (linear_rows_is_fastest(info, problem) && linear_rows_fits(info, family, problem)) {
    return plan_linear_rows(info, family, problem);
  }
  if (problem.M <= gemv_rows(family)) return plan_linear_gemv(info, family, problem);
  if (family.matrix) return plan_linear_gemm_coopmat(info, family, problem);
  return plan_linear_gemm(info, family, problem);
}

}  // namespace q8ta::kernels
