#include "kernels/linear_candidates.h"

#include <algorithm>

#include "kernels/linear_gemm.h"
#include "kernels/linear_gemm_coopmat.h"
#include "kernels/linear_gemv.h"
#include "kernels/linear_rows.h"
#include "kernels/linear_rows_coopmat.h"

namespace q8ta::kernels {
namespace {

void add(std::vector<LinearPlan>& plans, const std::vector<LinearPlan>& more) {
  for (const LinearPlan& plan : more) {
    const bool known = std::any_of(plans.begin(), plans.end(),
                                   [&](const LinearPlan& other) { return other.spec == plan.spec; });
    if (!known) plans.push_back(plan);
  }
}

}  // namespace

std::vector<LinearPlan> linear_candidates(const vulkan::DeviceInfo& info, const KernelFamily& family,
                                          const LinearProblem& problem) {
  if (problem.weight_order == PackOrder::tiles) {
    if (!family.matrix) return {};
    return linear_gemm_coopmat_candidates(info, family, problem);
  }
  std::vector<LinearPlan> plans{plan_linear(info, family, problem)};
  add(plans, linear_gemv_candidates(info, family, problem));
  if (linear_rows_fits(info, family, problem)) add(plans, {plan_linear_rows(info, family, problem)});
  if (linear_rows_coopmat_fits(info, family, problem)) {
    add(plans, {plan_linear_rows_coopmat(info, family, problem)});
  }
  if (family.matrix) add(plans, linear_gemm_coopmat_candidates(info, family, problem));
  add(plans, linear_gemm_candidates(info, family, problem));
  return plans;
}

std::string variant_of(const LinearPlan& plan) {
  std::string variant(plan.spec.shader);
  for (uint32_t i = 0; i < plan.spec.constant_count; ++i) {
    if ((plan.problem_constants >> i & 1U) == 0) variant += " " + std::to_string(plan.spec.constants[i]);
  }
  return variant;
}

}  // namespace q8ta::kernels
