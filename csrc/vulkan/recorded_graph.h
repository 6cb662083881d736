#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "vulkan/capture.h"
#include "vulkan/recorded_batch.h"

namespace q8ta::vulkan {

/// Captured work, recorded into command buffers that can be submitted as often as wanted. It waits for all
/// work before it, also of an earlier replay. The DeviceStream's, under its mutex.
class RecordedGraph {
 public:
  RecordedGraph(Device& device, CommandPool& pool, Capture& capture);
  ~RecordedGraph() { release_memory(); }
  RecordedGraph(const RecordedGraph&) = delete;
  RecordedGraph& operator=(const RecordedGraph&) = delete;

  /// To be submitted in this order: one, unless a watchdog might end it.
  const std::vector<VkCommandBuffer>& submissions() const { return plain_.handles; }

  /// The same with timestamps: must not be submitted again before collect().
  const std::vector<VkCommandBuffer>& measured_submissions();
  /// Hands what they measured to the Profiler, when the GPU is done with them.
  void collect();

  /// Adds the names of the ops in it, for messages.
  void add_ops_to(std::vector<const char*>& ops) const;

  /// The memory is free for others, whose work comes after what was submitted of this.
  void release_memory();

 private:
  struct Part {
    std::unique_ptr<RecordedBatch> batch;
    std::unique_ptr<Timestamps> timestamps;
  };
  struct Recording {
    std::vector<Part> parts;
    std::vector<VkCommandBuffer> handles;
  };
  Recording record(bool measured);

  Device& device_;
  CommandPool& pool_;
  std::vector<Command> commands_;
  std::vector<DispatchLabel> labels_;
  std::vector<size_t> ends_;  // of the parts, in commands_
  MemoryPool::GraphMemory memory_;
  Recording plain_;
  std::optional<Recording> measured_;
};

}  // namespace q8ta::vulkan
