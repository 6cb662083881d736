#include "vulkan/timestamps.h"

#include <array>
#include <limits>

#include "vulkan/device.h"
#include "vulkan/error.h"

namespace q8ta::vulkan {

Timestamps::~Timestamps() { device_.api().vkDestroyQueryPool(device_.handle(), pool_, nullptr); }

void Timestamps::record_reset(VkCommandBuffer commands) {
  if (device_.info().timestamp_bits == 0) return;
  if (pool_ == VK_NULL_HANDLE) {
    VkQueryPoolCreateInfo info{VK_STRUCTURE_TYPE_QUERY_POOL_CREATE_INFO};
    info.queryType = VK_QUERY_TYPE_TIMESTAMP;
    info.queryCount = 2 * kMostCommands;
    check(device_.api().vkCreateQueryPool(device_.handle(), &info, nullptr, &pool_), "vkCreateQueryPool");
  }
  device_.api().vkCmdResetQueryPool(commands, pool_, 0, 2 * kMostCommands);
}

void Timestamps::record_begin(VkCommandBuffer commands, uint32_t index) const {
  if (!measured(index)) return;
  device_.api().vkCmdWriteTimestamp(commands, VK_PIPELINE_STAGE_TOP_OF_PIPE_BIT, pool_, 2 * index);
}

void Timestamps::record_end(VkCommandBuffer commands, uint32_t index) const {
  if (!measured(index)) return;
  device_.api().vkCmdWriteTimestamp(commands, VK_PIPELINE_STAGE_BOTTOM_OF_PIPE_BIT, pool_, 2 * index + 1);
}

double Timestamps::elapsed_us(uint32_t index) const {
  std::array<uint64_t, 2> ticks{};
  check(device_.api().vkGetQueryPoolResults(device_.handle(), pool_, 2 * index, 2, sizeof(ticks),
                                            ticks.data(), sizeof(uint64_t), VK_QUERY_RESULT_64_BIT),
        "vkGetQueryPoolResults");
  const uint32_t bits = device_.info().timestamp_bits;
  const uint64_t mask = bits >= 64 ? std::numeric_limits<uint64_t>::max() : (uint64_t{1} << bits) - 1;
  const auto elapsed = static_cast<double>((ticks[1] - ticks[0]) & mask);
  return elapsed * device_.info().limits.timestampPeriod * 1e-3;
}

}  // namespace q8ta::vulkan
