#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "vulkan/arena.h"
#include "vulkan/capture.h"
#include "vulkan/descriptor_pool.h"
#include "vulkan/event.h"
#include "vulkan/hazard_tracker.h"
#include "vulkan/recorder.h"
#include "vulkan/timestamps.h"

namespace q8ta::vulkan {

class RecordedGraph;

/// The one queue of work on blocks of a device's MemoryPool. Work is recorded and runs in order, without
/// anyone waiting for it; it is submitted when enough has gathered (SubmissionPolicy) or when someone wants a
/// result. Makes what it needs of Vulkan when it is first used.
class DeviceStream final : public Recorder {
 public:
  explicit DeviceStream(Device& device);
  ~DeviceStream() override;
  DeviceStream(const DeviceStream&) = delete;
  DeviceStream& operator=(const DeviceStream&) = delete;

  /// Records the work of one op: `work` gets the stream for itself. Afterwards it may be submitted. While the
  /// thread captures a graph, the work goes there instead.
  template <typename Work>
  void record(Work work) {
    if (Capture* capture = Capture::of_this_thread(device_)) {
      capture->record(work);
      return;
    }
    const std::lock_guard lock(mutex_);
    check_usable();
    work(static_cast<Recorder&>(*this));
    submit_if_worthwhile();
  }

  Device& device() override { return device_; }
  // For kernels, inside record().
  void dispatch(const Pipeline& pipeline, std::initializer_list<Binding> bindings,
                std::span<const std::byte> push_constants, uint32_t workgroups,
                const DispatchLabel& label) override;
  void copy(const BufferRange& from, const BufferRange& to, const DispatchLabel& label) override;
  BufferRange scratch(VkDeviceSize bytes) override;

  /// Copies host memory to the device. The host memory is free when this returns; the copy may still be
  /// queued.
  void upload(const void* data, size_t bytes, const BufferRange& to);

  /// Copies device memory to the host, waiting for all work before it.
  void download(const BufferRange& from, size_t bytes, void* data);

  /// Submits what is recorded.
  void flush();

  /// True if nothing is recorded or running.
  bool idle();

  /// Waits for everything that was recorded. Throws Error if the device failed; the message names the ops.
  void synchronize();

  /// The same, also while the thread captures a graph: for what no graph can need.
  void finish();

  /// Marks the point behind what has been recorded so far.
  void record_event(Event& event);
  /// Whether the GPU has passed the point; sees to it that it will.
  bool passed(const Event& event);
  void wait_for(const Event& event);
  /// Milliseconds between two points that the GPU has passed, both recorded by timed events.
  double milliseconds_between(const Event& begin, const Event& end);
  void forget_event(Event& event);

  /// Makes a graph of what was captured. It stays until remove_graph(), or as long as the stream.
  std::weak_ptr<RecordedGraph> add_graph(Capture& capture);
  void replay(const std::weak_ptr<RecordedGraph>& graph);
  void remove_graph(const std::weak_ptr<RecordedGraph>& graph);

 private:
  static constexpr size_t kBatches = 8;

  /// One submission: a command buffer and what its work uses.
  struct Batch {
    explicit Batch(Device& device)
        : descriptors(device), uploads(device, MemoryUse::upload), scratch(device, MemoryUse::device_local) {}

    VkCommandBuffer commands = VK_NULL_HANDLE;
    VkFence fence = VK_NULL_HANDLE;
    DescriptorPool descriptors;
    Arena uploads;
    Arena scratch;
    uint64_t submission = 0;  // which one it is
    uint32_t recorded = 0;
    uint64_t multiplies = 0;
    bool open = false;
    bool in_flight = false;
    BoundState bound;
    std::shared_ptr<RecordedGraph> graph;  // that was submitted in place of commands
    std::optional<Timestamps> timestamps;
    std::vector<DispatchRecord> profiled;
    bool profiling = false;
    std::vector<const char*> ops;  // for the message, should the device fail
  };

  void check_usable();
  void check_not_captured(const char* what) const;
  void create_batch(std::unique_ptr<Batch>& batch);
  Batch& next_batch();
  Batch& open_batch();
  Batch* open_batch_or_null();
  void append(const Command& command, std::span<const Binding> bindings, const DispatchLabel& label);
  void submit_if_worthwhile();
  void submit();
  void submitted(Batch& batch);
  void wait_for_all();
  bool gpu_is_idle();
  bool finished(const Batch& batch);
  void wait_for(Batch& batch);
  void destroy() noexcept;

  Device& device_;
  std::mutex mutex_;
  VkCommandPool command_pool_ = VK_NULL_HANDLE;
  std::array<std::unique_ptr<Batch>, kBatches> batches_;  // a ring
  size_t current_ = 0;
  uint64_t last_submission_ = 0;  // of the batches so far
  HazardTracker hazards_;
  Scope since_barrier_;  // what was recorded since the last barrier does
  Arena downloads_;
  std::vector<std::shared_ptr<RecordedGraph>> graphs_;
  std::vector<std::unique_ptr<Timestamps>> timers_;  // of all timed events so far
  std::vector<Timestamps*> free_timers_;
  size_t seen_messages_ = 0;
};

}  // namespace q8ta::vulkan
