#include "kernels/tuner.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <vector>

#include "kernels/layout.h"
#include "kernels/linear_dispatch.h"
#include "vulkan/buffer.h"
#include "vulkan/trial.h"

namespace q8ta::kernels {
namespace {

using vulkan::Buffer;
using vulkan::BufferRange;
using vulkan::MemoryUse;
using Clock = std::chrono::steady_clock;

constexpr size_t kRounds = 7;
constexpr auto kMostTime = std::chrono::milliseconds(1500);
constexpr auto kWarmUp = std::chrono::milliseconds(20);  // GPUs that were idle run slowly at first
constexpr double kSubmissionUs = 1000;                   // work that is measured as a whole
constexpr uint32_t kMostDispatches = 64;
constexpr double kHopeless = 1.3;  // so many times the best: measured once
constexpr double kWorthIt = 0.98;  // of the first plan's time
constexpr VkDeviceSize kBeyondCaches = VkDeviceSize{128} << 20;
constexpr VkDeviceSize kMostCopies = 64;

/// Memory for one problem, with weights enough to come from memory each time. What it holds does not matter.
class Workload {
 public:
  Workload(vulkan::Device& device, const LinearProblem& problem)
      : device_(device),
        problem_(problem),
        weight_bytes_(static_cast<VkDeviceSize>(
            4 * packed_words(Matrices{1, problem.N, problem.K}, problem.weight_order))),
        stride_(vulkan::round_up(weight_bytes_, device.binding_alignment())),
        // A software device shares the host's caches with whatever else runs.
        copies_(device.info().software() ? 1
                                         : std::clamp<VkDeviceSize>(kBeyondCaches / stride_, 1, kMostCopies)),
        x_(device, MemoryUse::device_local,
           VkDeviceSize{problem.M} * static_cast<VkDeviceSize>(padded_row_bytes(problem.K))),
        weights_(device, MemoryUse::device_local, copies_ * stride_),
        channels_(device, MemoryUse::device_local, VkDeviceSize{problem.N} * 4),
        y_(device, MemoryUse::device_local,
           VkDeviceSize{problem.M} * vulkan::round_up(problem.N * (problem.float_output ? 4 : 1), 4)),
        trial_(device) {}

  /// Microseconds of one dispatch among `count`.
  double time(const LinearPlan& plan, uint32_t count) {
    const LinearKernel kernel = make_linear_kernel(device_, plan);
    const BufferRange channel = channels_.range();
    for (uint32_t i = 0; i < count; ++i) {
      const BufferRange weights = weights_.range().subrange(next_copy_ * stride_, weight_bytes_);
      next_copy_ = (next_copy_ + 1) % copies_;
      record_linear_dispatch(trial_, kernel, problem_,
                             {x_.range(), weights, {channel, channel, channel}, y_.range()});
    }
    return trial_.run() / count;
  }

 private:
  vulkan::Device& device_;
  LinearProblem problem_;
  VkDeviceSize weight_bytes_, stride_, copies_;
  Buffer x_, weights_, channels_, y_;
  vulkan::Trial trial_;
  VkDeviceSize next_copy_ = 0;
};

uint32_t dispatches_for(double us) {
  return static_cast<uint32_t>(std::clamp(kSubmissionUs / std::max(us, 1.0), 1.0, double{kMostDispatches}));
}

}  // namespace

Measured find_fastest(vulkan::Device& device, std::span<const LinearPlan> plans,
                      const LinearProblem& problem) {
  Workload workload(device, problem);
  const auto start = Clock::now();
  std::vector<double> best(plans.size(), std::numeric_limits<double>::max());
  if (!device.info().software()) {
    while (Clock::now() - start < kWarmUp) workload.time(plans[0], 1);
  }
  double least = std::numeric_limits<double>::max();
  for (size_t round = 0; round < kRounds; ++round) {
    for (size_t i = 0; i < plans.size(); ++i) {
      if (round > 0 && best[i] > kHopeless * least) continue;
      if (round + i > 0 && Clock::now() - start > kMostTime) break;
      const double expected = round > 0 ? best[i] : workload.time(plans[i], 1);
      const uint32_t count = dispatches_for(expected);
      // The first run was no good measure where many fit into one: it has warmed up.
      const bool measured = round == 0 && count == 1;
      best[i] = std::min(best[i], measured ? expected : workload.time(plans[i], count));
      least = std::min(least, best[i]);
    }
  }
  const auto winner = static_cast<size_t>(std::min_element(best.begin(), best.end()) - best.begin());
  if (best[winner] > kWorthIt * best[0]) return {0, best[0]};
  return {winner, best[winner]};
}

}  // namespace q8ta::kernels
