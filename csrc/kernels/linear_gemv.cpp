#include "kernels/linear_gemv.h"

#include <algorithm>
#include <utility>

#include "kernels/layout.h"
#include "kernels/linear_dispatch.h"
#include "vulkan/device.h"

namespace q8ta::kernels {
namespace {

constexpr uint32_t kTreeThreads = 64;  // shaders/linear_gemv.comp: THREADS
constexpr uint32_t kTreeRows = 4;

uint32_t subgroup_threads(const vulkan::DeviceInfo& info) {
  constexpr uint32_t kMost = 256;  // SwiftShader allows no more
  return std::clamp(8 * info.subgroup_size, kTreeThreads, kMost);
}

struct GemvShape {
  uint32_t threads, rows, outputs;
};

GemvShape choose_shape(const vulkan::DeviceInfo& info, const KernelFamily& family, uint32_t N) {
  if (!family.subgroup) return {kTreeThreads, kTreeRows, kTreeRows};
  const uint32_t threads = subgroup_threads(info);
  const uint32_t subgroups = threads / info.subgroup_size;
  // One output a subgroup spreads a small N over the whole device; with several, more loads are in flight.
  uint32_t rows = N <= 4096 ? 1 : 2;
  while (subgroups * rows % 4 != 0) rows *= 2;  // whole words of four outputs
  return {threads, rows, subgroups * rows};
}

}  // namespace

bool subgroup_gemv_fits(const vulkan::DeviceInfo& info) {
  const uint32_t threads = subgroup_threads(info);
  return info.subgroup_size > 0 && threads % info.subgroup_size == 0 &&
         threads / info.subgroup_size <= info.max_workgroup_subgroups &&
         threads <= info.limits.maxComputeWorkGroupInvocations &&
         threads <= info.limits.maxComputeWorkGroupSize[0];
}

void record_linear_gemv(vulkan::Recorder& recorder, const KernelFamily& family, const LinearProblem& problem,
                        const LinearBuffers& buffers) {
  const GemvShape shape = choose_shape(recorder.device().info(), family, problem.N);

  vulkan::PipelineSpec spec;
  spec.shader = family.subgroup
                    ? (family.int_dot ? "linear_gemv.subgroup.int_dot" : "linear_gemv.subgroup.plain")
                    : (family.int_dot ? "linear_gemv.shared.int_dot" : "linear_gemv.shared.plain");
  spec.set_constants({shape.threads, shape.rows, shape.outputs, problem.float_output ? 1U : 0U});
  spec.requires_subgroup_size = family.subgroup;
  record_linear_dispatch(
      recorder, std::move(spec), problem, buffers, static_cast<uint32_t>(weight_row_bytes(problem.K) / 16),
      static_cast<uint32_t>(ceil_div(problem.N, shape.outputs)), family.gemv_name(problem.float_output));
}

}  // namespace q8ta::kernels
