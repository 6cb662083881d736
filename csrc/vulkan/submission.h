#pragma once

#include <volk.h>

#include <optional>

#include "vulkan/command_pool.h"
#include "vulkan/descriptor_pool.h"
#include "vulkan/fence.h"
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
  Device& device_;
  CommandPool pool_;
  VkCommandBuffer commands_;
  DescriptorPool descriptors_;
  Timestamps timestamps_;
  std::optional<CommandRecording> recording_;
  Fence fence_;  // the last: before all else goes, it waits
};

}  // namespace q8ta::vulkan
