#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

namespace q8ta::vulkan {

/// The next push_back does not throw.
template <typename T>
void make_room(std::vector<T>& elements) {
  constexpr std::size_t kFew = 8;
  if (elements.size() == elements.capacity()) elements.reserve(std::max(kFew, 2 * elements.size()));
}

}  // namespace q8ta::vulkan
