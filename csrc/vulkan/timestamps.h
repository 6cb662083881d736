#pragma once

#include <volk.h>

#include <cstdint>

namespace q8ta::vulkan {

class Device;

/// Measures how long commands of one command buffer run on the GPU. On a device without timestamps it does
/// nothing.
class Timestamps {
 public:
  static constexpr uint32_t kMostCommands = 256;

  explicit Timestamps(Device& device, uint32_t most_commands = kMostCommands)
      : device_(device), most_commands_(most_commands) {}
  ~Timestamps();
  Timestamps(const Timestamps&) = delete;
  Timestamps& operator=(const Timestamps&) = delete;

  /// At the beginning of the command buffer.
  void record_reset(VkCommandBuffer commands);

  /// Around command `index`; those from `most_commands` on are not measured.
  void record_begin(VkCommandBuffer commands, uint32_t index) const;
  void record_end(VkCommandBuffer commands, uint32_t index) const;

  bool measured(uint32_t index) const { return pool_ != VK_NULL_HANDLE && index < most_commands_; }

  /// Microseconds of a measured command that the GPU is done with.
  double elapsed_us(uint32_t index) const;

  /// The device's clock when that command began and ended.
  struct Ticks {
    uint64_t begin = 0;
    uint64_t end = 0;
  };
  Ticks ticks(uint32_t index) const;
  uint64_t end_ticks(uint32_t index) const;

 private:
  void read(uint32_t first, uint32_t count, uint64_t* ticks) const;

  Device& device_;
  uint32_t most_commands_;
  VkQueryPool pool_ = VK_NULL_HANDLE;
};

/// Microseconds between two readings of the device's clock, which may have begun anew in between. Negative if
/// `end` was read first.
double microseconds_between(const Device& device, uint64_t begin_ticks, uint64_t end_ticks);

}  // namespace q8ta::vulkan
