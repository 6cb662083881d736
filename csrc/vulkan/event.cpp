#include "vulkan/event.h"

#include "vulkan/context.h"
#include "vulkan/device.h"
#include "vulkan/device_stream.h"
#include "vulkan/fork.h"

namespace q8ta::vulkan {

Event::~Event() {
  if (timer_ == nullptr || inherited_by_fork() || Context::is_closed()) return;
  device_->stream().forget_event(*this);
}

}  // namespace q8ta::vulkan
