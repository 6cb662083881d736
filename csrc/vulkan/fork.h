#pragma once

#include <mutex>

namespace q8ta::vulkan {

/// True in a forked child of a process that had Vulkan open. Drivers hang there (lavapipe and SwiftShader:
/// their worker threads do not exist in the child), so the child must not touch what it inherited.
bool inherited_by_fork();

[[noreturn]] void throw_forked();

/// Throws Unavailable if inherited_by_fork().
inline void check_not_forked() {
  if (inherited_by_fork()) throw_forked();
}

/// From now on, forks wait for `mutex` (the child must not find it locked by a thread that it does not have),
/// and a child counts as having inherited Vulkan if `vulkan_is_open()` at the fork. Only the first call has
/// an effect.
void watch_forks(std::mutex& mutex, bool (*vulkan_is_open)());

}  // namespace q8ta::vulkan
