#include "kernels/linear_choice.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <stdexcept>

#include "kernels/linear_candidates.h"
#include "kernels/linear_gemm_coopmat.h"
#include "kernels/self_test.h"
#include "kernels/tuner.h"
#include "kernels/warning.h"
#include "vulkan/error.h"

namespace q8ta::kernels {
namespace {

constexpr auto kMostTestTime = std::chrono::seconds(3);

constexpr std::array<const char*, 3> kFeatures{"coopmat", "subgroup", "int_dot"};

const char* describe(const std::string& feature) {
  if (feature == "coopmat") return "cooperative matrices";
  return feature == "subgroup" ? "subgroup operations" : "the int8 dot product";
}

KernelFamily without(KernelFamily family, const std::string& feature) {
  if (feature == "coopmat") family.matrix.reset();
  if (feature == "subgroup") family.subgroup = false;
  if (feature == "int_dot") family.int_dot = false;
  return family;
}

bool uses(const LinearPlan& plan, const std::string& feature) {
  const bool coopmat = plan.spec.shader.ends_with("coopmat");
  if (feature == "coopmat") return coopmat;
  if (feature == "subgroup") return plan.spec.requires_subgroup_size && !coopmat;
  return plan.spec.shader.ends_with("int_dot");
}

bool tuning_is_on() {
  const char* text = std::getenv("Q8TA_TUNE");
  const std::string value = text == nullptr ? "" : text;
  if (value.empty() || value == "0") return false;
  if (value == "1") return true;
  throw std::invalid_argument("Q8TA_TUNE: expected 0 or 1, got '" + value + "'");
}

std::string sizes(const LinearProblem& problem) {
  return std::to_string(problem.M) + " x " + std::to_string(problem.K) + " x " + std::to_string(problem.N);
}

/// Problems that share a choice: few rows exactly, more by powers of two.
std::string shape_class(const KernelFamily& family, const LinearProblem& problem) {
  constexpr uint32_t kExactRows = 8;
  uint64_t rows = problem.M;
  if (rows > kExactRows) {
    rows = kExactRows;
    while (rows < problem.M) rows *= 2;
  }
  std::string text = "M" + std::to_string(rows) + " K" + std::to_string(problem.K) + " N" +
                     std::to_string(problem.N) + (problem.float_output ? " float32" : " int8");
  if (family.matrix) text += " coopmat";
  if (family.int_dot) text += " int_dot";
  if (family.subgroup) text += " subgroup";
  return text;
}

}  // namespace

LinearChoices::LinearChoices(vulkan::Device& device)
    : device_(device), tunes_(tuning_is_on()), file_(device.info()), tuned_(file_.read()) {}

LinearChoices::Key LinearChoices::key_of(const KernelFamily& family, const LinearProblem& problem) {
  const uint32_t flags = (problem.float_output ? 1U : 0U) | (family.int_dot ? 2U : 0U) |
                         (family.subgroup ? 4U : 0U) | (family.matrix ? 8U : 0U) |
                         (problem.weight_order == PackOrder::tiles ? 16U : 0U);
  return {problem.M, problem.K, problem.N, flags};
}

LinearChoices::Slot& LinearChoices::slot_of(const Key& key) {
  const uint64_t sizes = (uint64_t{key.K} << 32U | key.N) * 0x9E37'79B9'7F4A'7C15U;
  const uint64_t hash = (sizes ^ key.M ^ uint64_t{key.flags} << 32U) * 0xD6E8'FEB8'6659'FD93U;
  return slots_[hash >> 54U];
}

template <typename Choose>
LinearKernel LinearChoices::remembered(const Key& key, Choose choose) {
  Slot& slot = slot_of(key);
  {
    const std::lock_guard lock(slots_mutex_);
    if (slot.key == key) return slot.kernel;
  }
  const std::lock_guard choosing(choosing_mutex_);
  const LinearKernel kernel = choose();
  const std::lock_guard lock(slots_mutex_);
  slot = {key, kernel};
  return kernel;
}

LinearKernel LinearChoices::get(const KernelFamily& family, const LinearProblem& problem) {
  return remembered(key_of(family, problem),
                    [&] { return make_linear_kernel(device_, choose(family, problem)); });
}

std::optional<LinearKernel> LinearChoices::get_in_tiles(const KernelFamily& family,
                                                        const LinearProblem& problem) {
  LinearProblem in_tiles = problem;
  in_tiles.weight_order = PackOrder::tiles;
  const LinearKernel kernel = remembered(key_of(family, in_tiles), [&] {
    const std::optional<LinearPlan> plan = choose_in_tiles(family, in_tiles);
    return plan ? make_linear_kernel(device_, *plan) : LinearKernel{};
  });
  if (kernel.pipeline == nullptr) return std::nullopt;
  return kernel;
}

void LinearChoices::forget_kernels() {
  const std::lock_guard lock(slots_mutex_);
  slots_.fill({});
}

LinearPlan LinearChoices::choose(const KernelFamily& asked, const LinearProblem& problem) {
  for (;;) {
    const KernelFamily family = without_switched_off(asked);
    const LinearPlan plan = plan_linear(device_.info(), family, problem);
    const std::string fault = find_fault(plan, problem);
    if (!fault.empty()) {
      switch_off(family, plan, problem, fault);
      continue;
    }
    std::optional<LinearPlan> better = tuned(family, problem);
    if (!better && tunes_) {
      tune(family, problem);
      better = tuned(family, problem);
    }
    return better.value_or(plan);
  }
}

std::optional<LinearPlan> LinearChoices::choose_in_tiles(const KernelFamily& asked,
                                                         const LinearProblem& problem) {
  LinearProblem in_rows = problem;
  in_rows.weight_order = PackOrder::padded_rows;
  const LinearPlan usual = choose(asked, in_rows);
  if (!usual.faster_in_tiles) return std::nullopt;
  const KernelFamily family = without_switched_off(asked);
  for (const LinearPlan& plan : linear_candidates(device_.info(), family, problem)) {
    if (variant_of(plan) != variant_of(usual)) continue;
    const std::string fault = find_fault(plan, problem);
    if (fault.empty()) return plan;
    switch_off(family, plan, in_rows, fault);
    break;
  }
  return std::nullopt;
}

std::string LinearChoices::find_fault(const LinearPlan& plan, const LinearProblem& problem) {
  const vulkan::Pipeline* pipeline = make_linear_kernel(device_, plan).pipeline;
  if (right_.contains(pipeline)) return "";
  std::string difference = find_difference_quickly(device_, plan, problem);
  if (difference.empty()) {
    right_.insert(pipeline);
    return "";
  }
  return std::string(plan.kernel) + " (" + variant_of(plan) + ") for " + sizes(problem) +
         (problem.weight_order == PackOrder::tiles ? ", weights in tiles: " : ": ") + difference;
}

void LinearChoices::switch_off(const KernelFamily& family, const LinearPlan& plan,
                               const LinearProblem& problem, const std::string& fault) {
  const vulkan::DeviceInfo& info = device_.info();
  const std::string device = info.name + " (" + info.driver + ")";
  std::vector<std::string> suspects;
  for (const char* feature : kFeatures) {
    if (uses(plan, feature)) suspects.emplace_back(feature);
  }
  if (suspects.empty()) {
    throw vulkan::Error(device + " cannot be used: even the plainest kernel computes wrong there, " + fault +
                        ". Q8TA_DEVICE=host computes on the host");
  }
  if (suspects.size() > 1) {  // the one without which all is right; if there is none, all
    const auto guilty = std::find_if(suspects.begin(), suspects.end(), [&](const std::string& feature) {
      return find_fault(plan_linear(info, without(family, feature), problem), problem).empty();
    });
    if (guilty != suspects.end()) suspects = {*guilty};
  }
  for (const std::string& feature : suspects) switched_off_[feature] = {feature, fault};
  forget_kernels();
  for (const std::string& feature : suspects) {
    warn(std::string(describe(feature)) + " (" + feature + ") of " + device +
         " failed the self-test and is not used, plainer kernels are: " + fault);
  }
}

KernelFamily LinearChoices::without_switched_off(KernelFamily family) {
  for (const auto& [feature, found] : switched_off_) family = without(family, feature);
  find_out_lanes(family);
  return family;
}

void LinearChoices::find_out_lanes(KernelFamily& family) {
  if (!family.matrix || !family.own_sums) return;
  if (!own_sums_) {
    const std::optional<OwnSumsTrial> trial = own_sums_trial(device_.info(), family);
    own_sums_ = trial && find_difference(device_, trial->plan, trial->problem).empty();
  }
  family.own_sums = *own_sums_;
}

KernelFamily LinearChoices::with_lanes_known(KernelFamily family) {
  const std::lock_guard lock(choosing_mutex_);
  find_out_lanes(family);
  return family;
}

KernelFamily LinearChoices::trusted(const KernelFamily& family) {
  const std::lock_guard lock(choosing_mutex_);
  return without_switched_off(family);
}

std::vector<SwitchedOff> LinearChoices::switched_off() {
  const std::lock_guard lock(choosing_mutex_);
  std::vector<SwitchedOff> all;
  for (const auto& [feature, found] : switched_off_) all.push_back(found);
  return all;
}

std::optional<LinearPlan> LinearChoices::tuned(const KernelFamily& family, const LinearProblem& problem) {
  if (tuned_.empty()) return std::nullopt;
  const auto choice = tuned_.find(shape_class(family, problem));
  if (choice == tuned_.end()) return std::nullopt;
  for (const LinearPlan& plan : linear_candidates(device_.info(), family, problem)) {
    if (variant_of(plan) != choice->second) continue;
    const std::string fault = find_fault(plan, problem);
    if (fault.empty()) return plan;
    warn("a kernel that was to be used on " + device_.info().name +
         " failed the self-test, another is: " + fault);
    break;
  }
  tuned_.erase(choice);  // what it names is wrong or gone
  return std::nullopt;
}

void LinearChoices::tune(const KernelFamily& family, const LinearProblem& problem) {
  std::vector<LinearPlan> plans = linear_candidates(device_.info(), family, problem);
  // To make and to test a pipeline takes a tenth of a second here and there; late ones are not waited for.
  const auto deadline = std::chrono::steady_clock::now() + kMostTestTime;
  std::erase_if(plans, [&](const LinearPlan& plan) {
    return std::chrono::steady_clock::now() > deadline || !find_fault(plan, problem).empty();
  });
  const std::string name = shape_class(family, problem);
  try {
    const Measured fastest = find_fastest(device_, plans, problem);
    tuned_[name] = variant_of(plans[fastest.plan]);
    file_.add(name, tuned_[name], fastest.us);
  } catch (const vulkan::OutOfMemory& error) {
    warn("too little memory to tune " + sizes(problem) + " on " + device_.info().name + ": " + error.what());
    tuned_[name] = variant_of(plans.front());
  }
}

void LinearChoices::prefer(const KernelFamily& family, const LinearProblem& problem,
                           const std::string& variant) {
  const std::lock_guard lock(choosing_mutex_);
  const std::string name = shape_class(without_switched_off(family), problem);
  if (variant.empty()) {
    tuned_.erase(name);
  } else {
    tuned_[name] = variant;
  }
  forget_kernels();
}

size_t LinearChoices::tuned_classes() {
  const std::lock_guard lock(choosing_mutex_);
  return tuned_.size();
}

}  // namespace q8ta::kernels
