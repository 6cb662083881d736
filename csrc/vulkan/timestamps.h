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

  explicit Timestamps(Device& device) : device_(device) {}
  ~Timestamps();
  Timestamps(const Timestamps&) = delete;
  Timestamps& operator=(const Timestamps&) = delete;

  /// At the beginning of the command buffer.
  void record_reset(VkCommandBuffer commands);

  /// Around command `index`; later ones than kMostCommands are not measured.
  void record_begin(VkCommandBuffer commands, uint32_t index) const;
  void record_end(VkCommandBuffer commands, uint32_t index) const;

  bool measured(uint32_t index) const { return pool_ != VK_NULL_HANDLE && index < kMostCommands; }

  /// Microseconds of a measured command that the GPU is done with.
  double elapsed_us(uint32_t index) const;

 private:
  Device& device_;
  VkQueryPool pool_ = VK_NULL_HANDLE;
};

}  // namespace q8ta::vulkan
