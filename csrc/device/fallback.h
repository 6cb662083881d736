#pragma once

#include <cstdint>
#include <map>
#include <string>

namespace q8ta::device {

/// How often each operator without a kernel on the device was run on the CPU.
std::map<std::string, uint64_t> fallback_counts();
void reset_fallback_counts();

}  // namespace q8ta::device
