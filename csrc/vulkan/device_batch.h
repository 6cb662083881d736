#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <variant>
#include <vector>

#include "vulkan/arena.h"
#include "vulkan/command.h"
#include "vulkan/command_pool.h"
#include "vulkan/descriptor_pool.h"
#include "vulkan/fence.h"
#include "vulkan/profiler.h"
#include "vulkan/timestamps.h"

namespace q8ta::vulkan {

class RecordedGraph;

/// One submission of a DeviceStream: a command buffer and what its work uses. What was added stays until it
/// is submitted: if the driver cannot record or submit it, it is recorded again and submitted later.
class DeviceBatch {
 public:
  DeviceBatch(Device& device, CommandPool& pool);
  ~DeviceBatch();
  DeviceBatch(const DeviceBatch&) = delete;
  DeviceBatch& operator=(const DeviceBatch&) = delete;

  /// Waits for what was submitted; then there is nothing in it.
  void reset();

  /// The next commands can be added. Records those again whose recording was given up.
  void open();
  // While it is open. If they throw, nothing was added.
  void add_barrier(const Scope& earlier, const Scope& later);
  void add_command(const Command& command, const DispatchLabel& label);
  /// The point in time behind what was added so far.
  void add_event(Timestamps& event);

  /// Whether it was opened since the last reset() or submit(): what it has handed out is in use.
  bool begun() const { return begun_; }
  /// Whether something was added that is not submitted.
  bool pending() const { return !steps_.empty(); }
  uint32_t commands() const { return commands_; }
  uint64_t multiplies() const { return multiplies_; }
  uint64_t work() const { return work_; }  // work_of() all of them

  Arena& uploads() { return uploads_; }
  Arena& scratch() { return scratch_; }

  /// If it throws, all of it is still pending, unless the device is lost.
  void submit(uint64_t submission);
  /// The same with a graph behind it in one submission. The graph does not run, either, if it throws.
  void submit_with(std::shared_ptr<RecordedGraph> graph, VkCommandBuffer graph_commands, uint64_t submission);
  /// Submits a graph in place of commands.
  void submit(std::shared_ptr<RecordedGraph> graph, const std::vector<VkCommandBuffer>& parts,
              uint64_t submission);

  /// Which submission it was last.
  uint64_t submission() const { return submission_; }
  bool finished() { return fence_.passed(); }
  /// If the device is lost, the ops in it are those that were (Device::set_lost_ops).
  void wait();

  /// Whether it has work that nobody has waited for.
  bool holds_work() const { return pending() || fence_.pending() || graph_ != nullptr; }
  /// Adds the names of its ops, for messages.
  void add_ops_to(std::vector<const char*>& ops) const;

 private:
  struct Barrier {
    Scope earlier, later;
  };
  using Step = std::variant<Barrier, Command, Timestamps*>;

  void record(const Step& step);
  void record(const Barrier& barrier);
  void record(const Command& command);
  void record(Timestamps* event);
  template <typename What>
  void add(const What& what);
  void submit_recorded(std::span<const VkCommandBuffer> commands, uint64_t submission);
  void forget_graph();
  void collect_profile();

  Device& device_;
  VkCommandBuffer commands_buffer_;
  DescriptorPool descriptors_;
  Arena uploads_;
  Arena scratch_;
  std::unique_ptr<CommandRecording> recording_;  // null: the steps are not in the command buffer
  bool begun_ = false;
  std::vector<Step> steps_;
  uint32_t recorded_ = 0;  // commands among the steps that are in the command buffer
  BoundState bound_;
  uint32_t commands_ = 0;  // among the steps
  uint64_t multiplies_ = 0;
  uint64_t work_ = 0;
  std::vector<const char*> ops_;  // for the message, should the device fail
  bool profiling_ = false;
  std::optional<Timestamps> timestamps_;
  std::vector<DispatchRecord> profiled_;
  std::shared_ptr<RecordedGraph> graph_;
  uint64_t submission_ = 0;
  Fence fence_;  // the last: before all else goes, it waits
};

}  // namespace q8ta::vulkan
