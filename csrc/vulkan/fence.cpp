#include "vulkan/fence.h"

#include <chrono>

#include "vulkan/device.h"

namespace q8ta::vulkan {

VkResult wait_for_fence(const Device& device, VkFence fence) {
  constexpr auto kSpin = std::chrono::microseconds(200);
  const VolkDeviceTable& api = device.api();
  VkResult result = VK_NOT_READY;
  if (!device.info().software()) {  // a software driver needs the core that would spin
    const auto deadline = std::chrono::steady_clock::now() + kSpin;
    do {
      result = api.vkGetFenceStatus(device.handle(), fence);
    } while (result == VK_NOT_READY && std::chrono::steady_clock::now() < deadline);
  }
  if (result == VK_NOT_READY) {
    do {
      result = api.vkWaitForFences(device.handle(), 1, &fence, VK_TRUE, 1'000'000'000);
    } while (result == VK_TIMEOUT);
  }
  return result;
}

}  // namespace q8ta::vulkan
