#pragma once

#include <vulkan/vulkan.h>

#include <cstdint>
#include <cstring>

namespace fault_layer {

/// What stands in for a call that is counted, may fail, or makes or destroys objects; null for all others.
/// `name` with "vk". Instances and devices themselves are made in layer.cpp.
PFN_vkVoidFunction hook_of_call(const char* name);

/// What the specification leaves undefined after a failure is a value that must not be used.
template <typename Handle>
void spoil(Handle* handle) {
  const uint64_t nonsense = 0xDEAD'BEEF'DEAD'BEE0U;
  std::memcpy(handle, &nonsense, sizeof(*handle));
}

}  // namespace fault_layer
