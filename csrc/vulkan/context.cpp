#include "vulkan/context.h"

#include <pthread.h>

#include <atomic>
#include <cstdlib>

#include "vulkan/error.h"

namespace q8ta::vulkan {
namespace {

std::mutex context_mutex;
std::atomic<Context*> context{nullptr};
std::atomic<bool> inherited_by_fork{false};

// The mutex is taken over the fork, so that the child never finds it locked by a thread that it does not
// have.
void before_fork() { context_mutex.lock(); }
void after_fork_in_parent() { context_mutex.unlock(); }
void after_fork_in_child() {
  context_mutex.unlock();
  if (context.load() != nullptr) inherited_by_fork.store(true);
}

}  // namespace

void check_not_forked() {
  if (!inherited_by_fork.load(std::memory_order_relaxed)) return;
  throw Unavailable(
      "this process was forked from one that had already used Vulkan, and Vulkan devices do not survive a "
      "fork: "
      "start workers with the 'spawn' method, or use q8ta in the parent only after forking, or set "
      "Q8TA_DEVICE=host");
}

Context& Context::get() {
  check_not_forked();
  if (Context* existing = context.load(std::memory_order_acquire)) return *existing;
  static const int registered = pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
  (void)registered;
  const std::lock_guard lock(context_mutex);
  if (context.load() == nullptr) {
    context.store(std::unique_ptr<Context>(new Context).release(), std::memory_order_release);
  }
  return *context.load();
}

Context::Context() : instance_(parse_validation_mode(std::getenv("Q8TA_VALIDATION"))) {
  uint32_t index = 0;
  for (VkPhysicalDevice physical_device : instance_.physical_devices()) {
    devices_.push_back(query_device_info(physical_device, index++));
  }
  opened_.resize(devices_.size());
}

Device& Context::device(uint32_t index) {
  const DeviceInfo& info = devices_.at(index);
  if (!info.usable()) throw Error(info.name + " cannot run q8ta kernels: " + info.unusable_because);
  const std::lock_guard lock(mutex_);
  if (!opened_[index]) opened_[index] = std::make_unique<Device>(instance_, info);
  return *opened_[index];
}

}  // namespace q8ta::vulkan
