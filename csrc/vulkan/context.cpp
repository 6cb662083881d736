#include "vulkan/context.h"

#include <atomic>
#include <cstdlib>

#include "vulkan/device_stream.h"
#include "vulkan/error.h"
#include "vulkan/fork.h"
#include "vulkan/process_exit.h"
#include "vulkan/stream_pool.h"

namespace q8ta::vulkan {
namespace {

std::mutex context_mutex;
std::atomic<Context*> context{nullptr};

std::atomic<bool> closed{false};

bool context_exists() { return context.load() != nullptr; }

}  // namespace

Context& Context::get() {
  check_not_forked();
  if (Context* existing = context.load(std::memory_order_acquire)) return *existing;
  watch_forks();
  const std::lock_guard lock(context_mutex);
  if (closed) throw Unavailable("this process is exiting and has closed Vulkan");
  if (context.load() == nullptr) {
    context.store(std::make_unique<Context>().release(), std::memory_order_release);
  }
  return *context.load();
}

void Context::watch_forks() { vulkan::watch_forks(context_mutex, context_exists); }

void Context::close_if_validating() {
  if (inherited_by_fork()) return;
  const std::lock_guard lock(context_mutex);
  Context* existing = context.load();
  if (existing == nullptr || existing->instance_.validation() == ValidationMode::off) return;
  closed = true;
  context.store(nullptr);
  const std::unique_ptr<Context> destroyed(existing);
}

void Context::leave_to_exit() noexcept {
  if (inherited_by_fork() || context.load() == nullptr) return;
  closed = true;
  close_driver_to_other_threads();
}

bool Context::is_closed() { return closed.load(std::memory_order_acquire); }

Context::Context() : instance_(parse_validation_mode(std::getenv("Q8TA_VALIDATION"))) {
  uint32_t index = 0;
  for (VkPhysicalDevice physical_device : instance_.physical_devices()) {
    devices_.push_back(query_device_info(physical_device, index++));
  }
  opened_.resize(devices_.size());
}

void Context::synchronize_if_open() {
  if (inherited_by_fork()) return;
  Context* existing = context.load(std::memory_order_acquire);
  if (existing == nullptr) return;
  const std::lock_guard lock(existing->mutex_);
  for (const std::unique_ptr<Device>& device : existing->opened_) {
    if (device && !device->lost()) device->stream().synchronize();
  }
}

std::vector<DispatchRecord> Context::stop_profile() {
  try {
    synchronize_if_open();
  } catch (...) {
    Profiler::instance().stop();
    throw;
  }
  return Profiler::instance().stop();
}

Device& Context::device(uint32_t index) {
  const DeviceInfo& info = devices_.at(index);
  if (!info.usable()) throw Error(info.name + " cannot run q8ta kernels: " + info.unusable_because);
  const std::lock_guard lock(mutex_);
  std::unique_ptr<Device>& opened = opened_[index];
  if (!opened || opened->lost()) {
    lost_.reserve(lost_.size() + 1);
    auto made = std::make_unique<Device>(instance_, info);
    if (opened) {
      opened->streams().clear();
      lost_.push_back(std::move(opened));
    }
    opened = std::move(made);
  }
  return *opened;
}

}  // namespace q8ta::vulkan
