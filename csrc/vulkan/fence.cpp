#include "vulkan/fence.h"

#include <chrono>
#include <thread>

#include "vulkan/device.h"
#include "vulkan/error.h"

namespace q8ta::vulkan {

Fence::Fence(Device& device) : device_(device) {
  const VkFenceCreateInfo info{VK_STRUCTURE_TYPE_FENCE_CREATE_INFO};
  check(device.api().vkCreateFence(device.handle(), &info, nullptr, &fence_), "vkCreateFence");
}

Fence::~Fence() {
  try {
    wait();
  } catch (const std::exception&) {  // nothing runs on a lost device; or there is no memory to say so
  }
  device_.api().vkDestroyFence(device_.handle(), fence_, nullptr);
}

void Fence::submit(std::span<const VkCommandBuffer> commands) {
  if (signalled_) {  // here and not in wait(): a failure then costs no result
    check(device_.api().vkResetFences(device_.handle(), 1, &fence_), "vkResetFences");
    signalled_ = false;
  }
  device_.submit(commands, fence_);
  pending_ = true;
}

bool Fence::passed() {
  if (!pending_) return true;
  const VkResult status = device_.api().vkGetFenceStatus(device_.handle(), fence_);
  if (status == VK_NOT_READY) return false;
  device_.check_result(status, "vkGetFenceStatus");
  return true;
}

/// Where the GPU is hardware, the thread first looks again and again for a short while: it would sleep longer
/// than short work takes.
VkResult Fence::wait_once() {
  constexpr auto kSpin = std::chrono::microseconds(200);
  const VolkDeviceTable& api = device_.api();
  if (!device_.info().software()) {  // a software driver needs the core that would spin
    const auto deadline = std::chrono::steady_clock::now() + kSpin;
    do {
      const VkResult status = api.vkGetFenceStatus(device_.handle(), fence_);
      if (status != VK_NOT_READY) return status;
    } while (std::chrono::steady_clock::now() < deadline);
  }
  VkResult result = VK_TIMEOUT;
  while (result == VK_TIMEOUT) {
    result = api.vkWaitForFences(device_.handle(), 1, &fence_, VK_TRUE, 1'000'000'000);
  }
  return result;
}

void Fence::wait() {
  if (!pending_) return;
  constexpr int kMostFailures = 100;
  constexpr auto kPause = std::chrono::milliseconds(2);
  VkResult result = wait_once();
  for (int failures = 0;
       result != VK_SUCCESS && result != VK_ERROR_DEVICE_LOST && failures < kMostFailures;) {
    std::this_thread::sleep_for(kPause);
    result = device_.api().vkGetFenceStatus(device_.handle(), fence_);
    if (result == VK_NOT_READY) {
      failures = 0;
    } else if (result != VK_SUCCESS) {
      ++failures;
    }
  }
  pending_ = false;
  if (result == VK_ERROR_DEVICE_LOST) {
    device_.set_lost("waiting for the GPU", result);
  } else if (result != VK_SUCCESS) {
    device_.wait_idle();  // the last way to know
  }
  device_.check_not_lost();
  signalled_ = true;
}

}  // namespace q8ta::vulkan
