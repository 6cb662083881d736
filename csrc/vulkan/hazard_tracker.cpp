#include "vulkan/hazard_tracker.h"

#include <algorithm>

namespace q8ta::vulkan {
namespace {

bool overlap(const BufferRange& a, const BufferRange& b) {
  return a.buffer == b.buffer && a.offset < b.offset + b.size && b.offset < a.offset + a.size;
}

}  // namespace

bool HazardTracker::needs_barrier(std::span<const Binding> bindings) {
  constexpr size_t kMost = 128;  // looking through more would cost more than a barrier
  const bool full = since_barrier_.size() >= kMost;
  const bool conflict = std::any_of(bindings.begin(), bindings.end(), [this](const Binding& binding) {
    return std::any_of(since_barrier_.begin(), since_barrier_.end(), [&binding](const Access& earlier) {
      return (binding.written || earlier.written) && overlap(binding.range, earlier.range);
    });
  });
  if (conflict || full) since_barrier_.clear();
  for (const Binding& binding : bindings) {
    since_barrier_.push_back({binding.range, binding.written});
  }
  return conflict || full;
}

void HazardTracker::reset() { since_barrier_.clear(); }

}  // namespace q8ta::vulkan
