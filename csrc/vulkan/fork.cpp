#include "vulkan/fork.h"

#include <pthread.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>

#include "vulkan/error.h"

namespace q8ta::vulkan {
namespace {

std::atomic<bool> inherited{false};
std::mutex* held_over_forks = nullptr;
bool (*is_open)() = nullptr;

#ifdef __GLIBC__
void leave_at_once(int status, void*) {
  std::fflush(nullptr);
  _exit(status);
}
#endif

void before_fork() { held_over_forks->lock(); }
void after_fork_in_parent() { held_over_forks->unlock(); }
void after_fork_in_child() {
  held_over_forks->unlock();
  if (!is_open()) return;
  inherited.store(true);
#ifdef __GLIBC__
  // Registered last, so called first: the child must not run the driver's own exit handlers. Seen with NVIDIA
  // 580.159: after a child had ended by exit(), the parent hung at its own exit.
  on_exit(leave_at_once, nullptr);
#endif
}

}  // namespace

bool inherited_by_fork() { return inherited.load(std::memory_order_relaxed); }

void throw_forked() {
  throw Unavailable(
      "this process was forked from one that had already used Vulkan, and Vulkan devices do not survive a "
      "fork: start workers with the 'spawn' method, or use q8ta in the parent only after forking, or set "
      "Q8TA_DEVICE=host");
}

void watch_forks(std::mutex& mutex, bool (*vulkan_is_open)()) {
  static const int registered = [&] {
    held_over_forks = &mutex;
    is_open = vulkan_is_open;
    return pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
  }();
  (void)registered;
}

}  // namespace q8ta::vulkan
