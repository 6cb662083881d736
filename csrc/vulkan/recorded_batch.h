#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "vulkan/command.h"
#include "vulkan/command_pool.h"
#include "vulkan/descriptor_pool.h"
#include "vulkan/timestamps.h"

namespace q8ta::vulkan {

/// A command buffer with its descriptor sets. May be submitted again once the GPU is done with it.
class RecordedBatch {
 public:
  RecordedBatch(Device& device, CommandPool& pool);
  ~RecordedBatch();
  RecordedBatch(const RecordedBatch&) = delete;
  RecordedBatch& operator=(const RecordedBatch&) = delete;

  /// Replaces what was recorded. Afterwards its results are visible to the host (`host_reads`) or to later
  /// submissions. `timestamps`, if any, measure every command.
  void record(const std::vector<Command>& commands, bool host_reads, Timestamps* timestamps = nullptr);

  /// For submissions that may overlap, in the order of the queue: waits for all work before it, and whoever
  /// comes after it has to wait for it.
  void record_repeatable(std::span<const Command> commands, Timestamps* timestamps);

  VkCommandBuffer handle() const { return commands_buffer_; }

 private:
  void record_all(std::span<const Command> commands, const Scope& scope, Timestamps* timestamps);

  Device& device_;
  CommandPool& pool_;
  VkCommandBuffer commands_buffer_;
  DescriptorPool descriptors_;
};

/// The batches that a stream submitted lately: a call that repeats one (the same layer again) is not recorded
/// again, which takes 1.5 us of a GEMV call.
class BatchCache {
 public:
  BatchCache(Device& device, CommandPool& pool) : device_(device), pool_(pool) {}

  VkCommandBuffer get(const std::vector<Command>& commands, bool host_reads);

 private:
  struct Entry {
    uint64_t hash;
    uint64_t last_use;
    std::vector<Command> commands;
    bool host_reads;
    std::unique_ptr<RecordedBatch> batch;
  };

  Device& device_;
  CommandPool& pool_;
  std::vector<Entry> entries_;
  uint64_t uses_ = 0;
};

}  // namespace q8ta::vulkan
