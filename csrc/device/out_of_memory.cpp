#include "device/out_of_memory.h"

#include <c10/util/Exception.h>

#include <string>

#include "device/devices.h"
#include "vulkan/device.h"
#include "vulkan/memory_pool.h"

namespace q8ta::device {

void throw_out_of_memory(const vulkan::OutOfMemory& error) {
  uint64_t allocated = 0;
  uint64_t reserved = 0;
  for (c10::DeviceIndex i = 0; i < device_count(); ++i) {
    const auto now = device_at(i).memory().statistics();
    allocated += now.allocated_bytes.current;
    reserved += now.reserved_bytes.current;
  }
  TORCH_CHECK_WITH(OutOfMemoryError, false,
                   std::string("vk: out of memory: ") + error.what() + "; tensors take " +
                       std::to_string(allocated) + " of " + std::to_string(reserved) + " reserved bytes");
}

}  // namespace q8ta::device
