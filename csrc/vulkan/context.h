#pragma once

#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "vulkan/device.h"
#include "vulkan/instance.h"
#include "vulkan/profiler.h"

namespace q8ta::vulkan {

/// The process's Vulkan: one instance, its physical devices, and the logical devices that were opened so far.
/// Made on first use and never destroyed by itself: static destructors would run while driver threads are
/// still alive.
class Context {
 public:
  /// Throws Unavailable when there is no Vulkan, and in a forked child of a process that has one.
  static Context& get();

  /// From now on forks wait for get() in other threads, and a child knows whether it has inherited Vulkan.
  static void watch_forks();

  /// Destroys everything if a validation layer is on: it then reports what leaked, and some layers (1.4.309,
  /// GPU-assisted) abort at exit if a device is still there. For the end of a process: get() throws
  /// afterwards.
  static void close_if_validating();

  /// For the very end of a process, when Python is gone and other threads may still compute: none of them is
  /// in the driver afterwards, and nothing is freed any more.
  static void leave_to_exit() noexcept;

  /// True after either.
  static bool is_closed();

  /// For get() alone.
  Context();

  std::span<const DeviceInfo> devices() const { return devices_; }

  /// Waits for the queued work of every device that is open, if any is.
  static void synchronize_if_open();

  /// Ends the profile behind the work that is queued, also if that work fails.
  static std::vector<DispatchRecord> stop_profile();

  /// Opens the device on first use, and anew when it was lost. Throws Error with the reason when it cannot
  /// run our kernels.
  Device& device(uint32_t index);

 private:
  Instance instance_;
  std::vector<DeviceInfo> devices_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<Device>> opened_;
  std::vector<std::unique_ptr<Device>> lost_;  // others may still refer to them
};

}  // namespace q8ta::vulkan
