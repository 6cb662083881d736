#include "device/devices.h"

#include <c10/util/Exception.h>

#include <array>
#include <limits>
#include <string>

#include "device/messages.h"
#include "vulkan/context.h"
#include "vulkan/error.h"
#include "vulkan/fork.h"
#include "vulkan/selection.h"

namespace q8ta::device {
namespace {

// Written by open_devices() alone, before there are tensors; read by every operator.
std::array<vulkan::Device*, std::numeric_limits<c10::DeviceIndex>::max()> opened;
c10::DeviceIndex opened_count = 0;

thread_local c10::DeviceIndex current = 0;

}  // namespace

void open_devices() {
  const auto selection = vulkan::current_selection();
  if (selection->device == nullptr) {
    throw vulkan::Error("there is no Vulkan device for the vk device: " + selection->reason);
  }
  c10::DeviceIndex count = 0;
  opened[count++] = selection->device;
  vulkan::Context& context = vulkan::Context::get();
  for (const vulkan::DeviceInfo& info : context.devices()) {
    const bool another = info.usable() && info.index != selection->device->info().index;
    const bool wanted = !info.software() || selection->device->info().software();
    if (!another || !wanted || static_cast<size_t>(count) == opened.size()) continue;
    try {
      opened[count] = &context.device(info.index);
      ++count;
    } catch (const vulkan::Error& error) {
      TORCH_WARN("vk: " + info.name + " is left out: " + error.what());
    }
  }
  opened_count = count;
}

c10::DeviceIndex device_count() { return opened_count; }

vulkan::Device& device_at(c10::DeviceIndex index) {
  const int64_t count = device_count();
  TORCH_CHECK(index >= 0 && index < count,
              message("vk: invalid device ordinal ", int64_t{index}, "; there ", count == 1 ? "is " : "are ",
                      count, count == 1 ? " device" : " devices"));
  vulkan::check_not_forked();
  if (vulkan::Context::is_closed()) throw vulkan::Error("this process is exiting and has closed Vulkan");
  vulkan::Device& device = *opened[static_cast<size_t>(index)];
  device.check_not_lost();
  return device;
}

c10::DeviceIndex current_device() { return current; }

void set_current_device(c10::DeviceIndex index) {
  if (index == current) return;
  device_at(index);
  current = index;
}

}  // namespace q8ta::device
