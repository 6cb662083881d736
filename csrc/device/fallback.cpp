#include "device/fallback.h"

#include <ATen/native/CPUFallback.h>
#include <torch/library.h>

#include <mutex>

namespace q8ta::device {
namespace {

struct Counts {
  std::mutex mutex;
  std::map<std::string, uint64_t> since_reset;
  std::map<std::string, uint64_t> ever;
};

Counts& counts() {
  static Counts instance;
  return instance;
}

void run_on_cpu(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const std::string name = c10::toString(op.operator_name());
  TORCH_CHECK_NOT_IMPLEMENTED(!name.starts_with("q8ta::"), name,
                              " has no kernel for the vk device, and does not run on the CPU instead");
  bool first = false;
  {
    const std::lock_guard lock(counts().mutex);
    ++counts().since_reset[name];
    first = ++counts().ever[name] == 1;
  }
  if (first) {
    TORCH_WARN("vk: ", name,
               " has no kernel on the device and runs on the CPU, which copies its tensors there ",
               "and back. torch.vk.fallbacks() counts how often; this is said once for each operator.");
  }
  at::native::cpu_fallback(op, stack);
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, library) {
  library.fallback(torch::CppFunction::makeFromBoxedFunction<&run_on_cpu>());
}

TORCH_LIBRARY_IMPL(_, AutocastPrivateUse1, library) {
  library.fallback(torch::CppFunction::makeFallthrough());
}

}  // namespace

std::map<std::string, uint64_t> fallback_counts() {
  const std::lock_guard lock(counts().mutex);
  return counts().since_reset;
}

void reset_fallback_counts() {
  const std::lock_guard lock(counts().mutex);
  counts().since_reset.clear();
}

}  // namespace q8ta::device
