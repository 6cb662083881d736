#include <c10/core/impl/DeviceGuardImplInterface.h>

#include "device/devices.h"
#include "vulkan/device_stream.h"

namespace q8ta::device {
namespace {

constexpr c10::DeviceType kType = c10::DeviceType::PrivateUse1;

/// One stream a device, so the stream functions have nothing to choose from.
struct GuardImpl final : public c10::impl::DeviceGuardImplInterface {
  GuardImpl() = default;
  explicit GuardImpl(c10::DeviceType type) { TORCH_INTERNAL_ASSERT(type == kType); }

  c10::DeviceType type() const override { return kType; }

  c10::Device exchangeDevice(c10::Device device) const override {
    const c10::Device previous = getDevice();
    setDevice(device);
    return previous;
  }
  c10::Device getDevice() const override { return {kType, current_device()}; }
  void setDevice(c10::Device device) const override { set_current_device(device.index()); }
  void uncheckedSetDevice(c10::Device device) const noexcept override {
    try {
      set_current_device(device.index());
    } catch (...) {  // restoring a device that existed cannot fail, except in a forked child
    }
  }
  c10::DeviceIndex deviceCount() const noexcept override { return device_count(); }

  c10::Stream getStream(c10::Device device) const override {
    return c10::Stream(c10::Stream::DEFAULT, device.has_index() ? device : getDevice());
  }
  c10::Stream getDefaultStream(c10::Device device) const override { return getStream(device); }
  c10::Stream getStreamFromGlobalPool(c10::Device device, bool /*high_priority*/) const override {
    return getStream(device);
  }
  c10::Stream getNewStream(c10::Device device, int /*priority*/) const override { return getStream(device); }
  c10::Stream exchangeStream(c10::Stream stream) const override { return getStream(stream.device()); }
  void synchronizeStream(const c10::Stream& stream) const override {
    device_at(stream.device_index()).stream().synchronize();
  }
  bool queryStream(const c10::Stream& stream) const override {
    return device_at(stream.device_index()).stream().idle();
  }
  void synchronizeDevice(const c10::DeviceIndex index) const override {
    device_at(index).stream().synchronize();
  }
  void recordDataPtrOnStream(const c10::DataPtr& /*data*/, const c10::Stream& /*stream*/) const override {}
};

C10_REGISTER_GUARD_IMPL(PrivateUse1, GuardImpl);

}  // namespace
}  // namespace q8ta::device
