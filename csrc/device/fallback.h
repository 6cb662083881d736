#pragma once

#include <ATen/core/dispatch/Dispatcher.h>

#include <cstdint>
#include <map>
#include <string>

namespace q8ta::device {

/// Counts an operator that runs on the CPU instead, and says so the first time.
void count_fallback(const std::string& name);

/// Runs an operator on copies of its tensors on the CPU and counts it.
void run_on_cpu(const c10::OperatorHandle& op, torch::jit::Stack* stack);

/// How often each operator without a kernel on the device was run on the CPU.
std::map<std::string, uint64_t> fallback_counts();
void reset_fallback_counts();

}  // namespace q8ta::device
