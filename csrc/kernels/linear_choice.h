#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_set>
#include <vector>

#include "kernels/linear_dispatch.h"
#include "kernels/linear_plan.h"
#include "kernels/tuning_file.h"
#include "vulkan/device.h"
#include "vulkan/pipeline.h"

namespace q8ta::kernels {

/// A feature of the device that computed wrong, and what showed it.
struct SwitchedOff {
  std::string feature;  ///< "coopmat", "int_dot" or "subgroup"
  std::string evidence;
};

/// Which kernel computes which problem on a device: the tuner's choice, else plan_linear's, and only kernels
/// that have passed the self-test. Lives as long as the device's pipelines. Thread-safe.
class LinearChoices final : public vulkan::PipelineCompanion {
 public:
  /// Throws std::invalid_argument if Q8TA_TUNE is neither 0 nor 1.
  explicit LinearChoices(vulkan::Device& device);

  static LinearChoices& of(vulkan::Device& device) { return device.pipelines().companion<LinearChoices>(); }

  /// The kernel for M, K, N and the kind of output, of weights in rows. The first time it is chosen, and its
  /// pipeline is tested; a feature whose kernel is wrong is switched off with a warning, and plainer kernels
  /// serve. Throws Error if the plainest kernel is wrong.
  LinearKernel get(const KernelFamily& family, const LinearProblem& problem);

  /// The same kernel and tile for weights in PackOrder::tiles, tested likewise; empty if get()'s would not be
  /// faster then.
  std::optional<LinearKernel> get_in_tiles(const KernelFamily& family, const LinearProblem& problem);

  /// From now on problems of this one's shape class are computed by the candidate of this name
  /// (variant_of); an empty name is the usual choice again.
  void prefer(const KernelFamily& family, const LinearProblem& problem, const std::string& variant);

  /// What the self-test has found so far.
  std::vector<SwitchedOff> switched_off();

  /// The family without what is switched off.
  KernelFamily trusted(const KernelFamily& family);

  /// The family with own_sums as it is on this device, which is tried out the first time.
  KernelFamily with_lanes_known(KernelFamily family);

  /// Shape classes for which a choice is known that was measured on this device.
  size_t tuned_classes();

 private:
  struct Key {
    uint32_t M = 0, K = 0, N = 0, flags = 0;
    bool operator==(const Key&) const = default;
  };
  struct Slot {
    Key key;              // M is never 0
    LinearKernel kernel;  // without a pipeline if there is none for this order of weights
  };
  static constexpr size_t kSlots = 1024;

  static Key key_of(const KernelFamily& family, const LinearProblem& problem);
  Slot& slot_of(const Key& key);
  template <typename Choose>
  LinearKernel remembered(const Key& key, Choose choose);
  void forget_kernels();

  LinearPlan choose(const KernelFamily& family, const LinearProblem& problem);
  std::optional<LinearPlan> choose_in_tiles(const KernelFamily& family, const LinearProblem& problem);
  KernelFamily without_switched_off(KernelFamily family);
  void find_out_lanes(KernelFamily& family);
  std::string find_fault(const LinearPlan& plan, const LinearProblem& problem);
  void switch_off(const KernelFamily& family, const LinearPlan& plan, const LinearProblem& problem,
                  const std::string& fault);
  std::optional<LinearPlan> tuned(const KernelFamily& family, const LinearProblem& problem);
  void tune(const KernelFamily& family, const LinearProblem& problem);

  vulkan::Device& device_;

  // A slot is overwritten by the next problem that falls into it: lookups cost the same for ever, and so does
  // the memory.
  std::mutex slots_mutex_;
  std::array<Slot, kSlots> slots_;

  std::mutex choosing_mutex_;  // of all below
  std::unordered_set<const vulkan::Pipeline*> right_;
  std::map<std::string, SwitchedOff> switched_off_;  // by feature
  std::optional<bool> own_sums_;
  bool tunes_;
  TuningFile file_;
  std::map<std::string, std::string> tuned_;  // shape class -> variant
};

}  // namespace q8ta::kernels
