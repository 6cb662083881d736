#pragma once

#include <volk.h>

#include <optional>

#include "vulkan/descriptor_pool.h"
#include "vulkan/timestamps.h"

namespace q8ta::vulkan {

class Device;

/// How long work took, in microseconds.
struct Elapsed {
  std::optional<double> gpu_us;  ///< by the device's clock; empty on a device without timestamps
  double wall_us = 0;            ///< from the submission until its end was seen
};

/// A command buffer of its own that is recorded, submitted and waited for, again and again.
class Submission {
 public:
  explicit Submission(Device& device, uint32_t most_timed_commands = Timestamps::kMostCommands);
  ~Submission();
  Submission(const Submission&) = delete;
  Submission& operator=(const Submission&) = delete;

  /// Begins to record what needs `sets` descriptor sets.
  void begin(uint32_t sets);

  VkCommandBuffer commands() const { return commands_; }
  DescriptorPool& descriptors() { return descriptors_; }
  Timestamps& timestamps() { return timestamps_; }

  /// Submits what was recorded and waits for it. `measured`, if any, is a timestamp pair that was recorded
  /// around all of it.
  Elapsed run(std::optional<uint32_t> measured = std::nullopt);

 private:
  void create();
  void destroy();

  Device& device_;
  VkCommandPool pool_ = VK_NULL_HANDLE;
  VkCommandBuffer commands_ = VK_NULL_HANDLE;
  VkFence fence_ = VK_NULL_HANDLE;
  DescriptorPool descriptors_;
  Timestamps timestamps_;
};

}  // namespace q8ta::vulkan
