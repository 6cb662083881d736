#include "vulkan/timestamps.h"

#include <algorithm>
#include <array>

#include "vulkan/device.h"
#include "vulkan/error.h"

namespace q8ta::vulkan {

Timestamps::~Timestamps() { device_.api().vkDestroyQueryPool(device_.handle(), pool_, nullptr); }

void Timestamps::record_reset(VkCommandBuffer commands) {
  if (device_.info().timestamp_bits == 0) return;
  if (pool_ == VK_NULL_HANDLE) {
    VkQueryPoolCreateInfo info{VK_STRUCTURE_TYPE_QUERY_POOL_CREATE_INFO};
    info.queryType = VK_QUERY_TYPE_TIMESTAMP;
    info.queryCount = 2 * most_commands_;
    VkQueryPool made = VK_NULL_HANDLE;
    check(device_.api().vkCreateQueryPool(device_.handle(), &info, nullptr, &made), "vkCreateQueryPool");
    pool_ = made;
  }
  device_.api().vkCmdResetQueryPool(commands, pool_, 0, 2 * most_commands_);
}

void Timestamps::record_begin(VkCommandBuffer commands, uint32_t index) const {
  if (!measured(index)) return;
  device_.api().vkCmdWriteTimestamp(commands, VK_PIPELINE_STAGE_TOP_OF_PIPE_BIT, pool_, 2 * index);
}

void Timestamps::record_end(VkCommandBuffer commands, uint32_t index) const {
  if (!measured(index)) return;
  device_.api().vkCmdWriteTimestamp(commands, VK_PIPELINE_STAGE_BOTTOM_OF_PIPE_BIT, pool_, 2 * index + 1);
}

void Timestamps::read(uint32_t first, uint32_t count, uint64_t* ticks) const {
  device_.check_result(
      device_.api().vkGetQueryPoolResults(device_.handle(), pool_, first, count, count * sizeof(uint64_t),
                                          ticks, sizeof(uint64_t), VK_QUERY_RESULT_64_BIT),
      "vkGetQueryPoolResults");
}

Timestamps::Ticks Timestamps::ticks(uint32_t index) const {
  std::array<uint64_t, 2> ticks{};
  read(2 * index, 2, ticks.data());
  return {ticks[0], ticks[1]};
}

uint64_t Timestamps::end_ticks(uint32_t index) const {
  uint64_t ticks = 0;
  read(2 * index + 1, 1, &ticks);
  return ticks;
}

double Timestamps::elapsed_us(uint32_t index) const {
  const Ticks measured = ticks(index);
  return microseconds_between(device_, measured.begin, measured.end);
}

double microseconds_between(const Device& device, uint64_t begin_ticks, uint64_t end_ticks) {
  // Shifted to the top of a signed number, a clock of fewer bits wraps around as the number does.
  const uint32_t unused_bits = 64 - std::min<uint32_t>(device.info().timestamp_bits, 64);
  const auto shifted = static_cast<int64_t>((end_ticks - begin_ticks) << unused_bits);
  return static_cast<double>(shifted >> unused_bits) * device.info().limits.timestampPeriod * 1e-3;
}

}  // namespace q8ta::vulkan
