#pragma once

#include <cstdint>

namespace q8ta::vulkan {

class Device;
class Timestamps;

/// A point in the work of a device's stream, as torch's events are: nowhere until it is recorded. The
/// functions are the stream's (DeviceStream::record_event and what follows it).
class Event {
 public:
  Event(Device& device, bool timed) : device_(&device), timed_(timed) {}
  ~Event();
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  Device& device() const { return *device_; }
  bool timed() const { return timed_; }

 private:
  friend class DeviceStream;

  Device* device_;
  bool timed_;
  uint64_t submission_ = 0;      // that the point is in
  Timestamps* timer_ = nullptr;  // the stream's
};

}  // namespace q8ta::vulkan
