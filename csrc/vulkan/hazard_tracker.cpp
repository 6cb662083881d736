#include "vulkan/hazard_tracker.h"

#include <algorithm>

namespace q8ta::vulkan {
namespace {

bool overlaps_any(const std::vector<BufferRange>& ranges, const BufferRange& range) {
  return std::any_of(ranges.begin(), ranges.end(), [&range](const BufferRange& other) {
    return range.buffer == other.buffer && range.offset < other.offset + other.size &&
           other.offset < range.offset + range.size;
  });
}

}  // namespace

bool HazardTracker::conflicts(const Binding& binding) const {
  return overlaps_any(written_, binding.range) || (binding.written && overlaps_any(read_, binding.range));
}

bool HazardTracker::needs_barrier(std::span<const Binding> bindings) {
  constexpr size_t kMost = 128;  // looking through more would cost more than a barrier
  const bool needed = everything_ || read_.size() + written_.size() >= kMost ||
                      std::any_of(bindings.begin(), bindings.end(),
                                  [this](const Binding& binding) { return conflicts(binding); });
  read_.reserve(kMost + kMaxBindings);  // before anything is forgotten: this may throw
  written_.reserve(kMost + kMaxBindings);
  if (needed) reset();
  for (const Binding& binding : bindings) (binding.written ? written_ : read_).push_back(binding.range);
  return needed;
}

void HazardTracker::reset() {
  read_.clear();
  written_.clear();
  everything_ = false;
}

}  // namespace q8ta::vulkan
