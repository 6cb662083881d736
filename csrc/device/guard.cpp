#include <c10/core/impl/DeviceGuardImplInterface.h>

#include <memory>

#include "device/devices.h"
#include "device/messages.h"
#include "vulkan/device_stream.h"
#include "vulkan/event.h"

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
  void record(void** event, const c10::Stream& stream, const c10::DeviceIndex /*device_index*/,
              const c10::EventFlag flag) const override {
    vulkan::Device& device = device_at(stream.device_index());
    auto* recorded = static_cast<vulkan::Event*>(*event);
    TORCH_CHECK(recorded == nullptr || &recorded->device() == &device,
                message("vk: this event was recorded on another device than ", stream.device()));
    if (recorded == nullptr) {
      *event = recorded =
          std::make_unique<vulkan::Event>(device, flag == c10::EventFlag::BACKEND_DEFAULT).release();
    }
    device.stream().record_event(*recorded);
  }
  // There is one stream, so everything is in order. Work of another device waits as the host does.
  void block(void* event, const c10::Stream& stream) const override {
    const auto& recorded = *static_cast<vulkan::Event*>(event);
    if (&recorded.device() != &device_at(stream.device_index()))
      recorded.device().stream().wait_for(recorded);
  }
  bool queryEvent(void* event) const override {
    if (event == nullptr) return true;
    const auto& recorded = *static_cast<vulkan::Event*>(event);
    return recorded.device().stream().passed(recorded);
  }
  void synchronizeEvent(void* event) const override {
    if (event == nullptr) return;
    const auto& recorded = *static_cast<vulkan::Event*>(event);
    recorded.device().stream().wait_for(recorded);
  }
  double elapsedTime(void* begin, void* end, const c10::DeviceIndex /*device_index*/) const override {
    const auto& first = *static_cast<vulkan::Event*>(begin);
    const auto& second = *static_cast<vulkan::Event*>(end);
    TORCH_CHECK(&first.device() == &second.device(), "vk: the events were recorded on different devices");
    return first.device().stream().milliseconds_between(first, second);
  }
  void destroyEvent(void* event, const c10::DeviceIndex /*device_index*/) const noexcept override {
    const std::unique_ptr<vulkan::Event> destroyed(static_cast<vulkan::Event*>(event));
  }

  void synchronizeDevice(const c10::DeviceIndex index) const override {
    device_at(index).stream().synchronize();
  }
  void recordDataPtrOnStream(const c10::DataPtr& /*data*/, const c10::Stream& /*stream*/) const override {}
};

C10_REGISTER_GUARD_IMPL(PrivateUse1, GuardImpl);

}  // namespace
}  // namespace q8ta::device
