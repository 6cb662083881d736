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
#include "vulkan/command_pool.h"
#include "vulkan/device_batch.h"
#include "vulkan/error.h"
#include "vulkan/event.h"
#include "vulkan/hazard_tracker.h"
#include "vulkan/recorder.h"
#include "vulkan/timestamps.h"

namespace q8ta::vulkan {

class RecordedGraph;

/// The one queue of work on blocks of a device's MemoryPool. Work is recorded and runs in order, without
/// anyone waiting for it; it is submitted when enough has gathered (SubmissionPolicy) or when someone wants a
/// result. Makes what it needs of Vulkan when it is first used.
///
/// What fails throws and is not recorded. What was recorded is not lost if the driver cannot submit it now:
/// it is tried again each time. When the device is lost, all that follows throws DeviceLost.
class DeviceStream final : public Recorder {
 public:
  explicit DeviceStream(Device& device);
  ~DeviceStream() override;
  DeviceStream(const DeviceStream&) = delete;
  DeviceStream& operator=(const DeviceStream&) = delete;

  /// Records the work of one op: `work` gets the stream for itself. Afterwards it may be submitted. If memory
  /// runs out before it has recorded anything, it is done again without the blocks that the pool keeps. While
  /// the thread captures a graph, the work goes there instead.
  template <typename Work>
  void record(Work work) {
    if (Capture* capture = Capture::of_this_thread(device_)) {
      capture->record(work);
      return;
    }
    bool begun = false;
    const auto record_once = [&] {
      exclusively([&] {
        submit_if_overdue();
        const uint64_t before = commands_ever_;
        try {
          work(static_cast<Recorder&>(*this));
        } catch (const OutOfMemory&) {
          begun = commands_ever_ != before;
          throw;
        }
        submit_if_worthwhile();
      });
    };
    try {
      return record_once();
    } catch (const OutOfMemory&) {  // what is recorded of an op must not be recorded again
      if (begun || !free_cached_memory()) throw;
    }
    record_once();
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

  /// Waits for everything that was recorded. Then the host may work on mapped memory of blocks, until the
  /// next work on them is recorded, which sees what the host has written.
  void synchronize_with_host();

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

  /// With the stream locked. If the device is lost meanwhile, the error names the ops that are queued.
  template <typename Work>
  auto exclusively(Work work) {
    const std::lock_guard lock(mutex_);
    check_usable();
    try {
      return work();
    } catch (const DeviceLost&) {
      throw_with_ops();
      throw;
    }
  }

  void check_usable();
  void throw_with_ops() const;
  bool free_cached_memory();
  template <typename Work>
  void again_without_cached_memory(Work work);
  void upload_once(const void* data, size_t bytes, const BufferRange& to);
  void download_once(const BufferRange& from, size_t bytes, void* data);
  void check_not_captured(const char* what) const;
  CommandPool& command_pool();
  DeviceBatch& next_batch();
  DeviceBatch& open_batch();
  DeviceBatch* pending_batch();
  void append(const Command& command, std::span<const Binding> bindings, const DispatchLabel& label);
  void submit_if_overdue();
  void submit_if_worthwhile();
  void submit();
  void wait_for_all();
  void finish_recorded();
  bool gpu_is_idle();

  Device& device_;
  std::mutex mutex_;
  std::optional<CommandPool> command_pool_;
  std::array<std::unique_ptr<DeviceBatch>, kBatches> batches_;  // a ring
  size_t current_ = 0;
  uint64_t last_submission_ = 0;
  uint64_t commands_ever_ = 0;
  uint64_t event_submission_ = 0;  // the last that an event stands for
  HazardTracker hazards_;
  bool unseen_by_host_ = false;  // work since synchronize_with_host()
  Scope since_barrier_;          // what was recorded since the last barrier does
  Arena downloads_;
  bool download_pending_ = false;
  std::vector<std::shared_ptr<RecordedGraph>> graphs_;
  std::vector<std::unique_ptr<Timestamps>> timers_;  // of all timed events so far
  std::vector<Timestamps*> free_timers_;
  size_t seen_messages_ = 0;
};

}  // namespace q8ta::vulkan
