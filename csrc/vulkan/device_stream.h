#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "vulkan/arena.h"
#include "vulkan/descriptor_pool.h"
#include "vulkan/hazard_tracker.h"
#include "vulkan/recorder.h"
#include "vulkan/timestamps.h"

namespace q8ta::vulkan {

/// The one queue of work on blocks of a device's MemoryPool. Work is recorded and runs in order, without
/// anyone waiting for it; it is submitted when enough has gathered or when someone wants a result.
class DeviceStream final : public Recorder {
 public:
  explicit DeviceStream(Device& device);
  ~DeviceStream() override;
  DeviceStream(const DeviceStream&) = delete;
  DeviceStream& operator=(const DeviceStream&) = delete;

  /// Records the work of one op: `work` gets the stream for itself. Afterwards it may be submitted.
  template <typename Work>
  void record(Work work) {
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

 private:
  static constexpr size_t kBatches = 8;

  /// A command buffer and what its work uses.
  struct Batch {
    explicit Batch(Device& device)
        : descriptors(device), uploads(device, MemoryUse::upload), scratch(device, MemoryUse::device_local) {}

    VkCommandBuffer commands = VK_NULL_HANDLE;
    VkFence fence = VK_NULL_HANDLE;
    DescriptorPool descriptors;
    Arena uploads;
    Arena scratch;
    uint32_t recorded = 0;
    uint64_t multiplies = 0;  // an estimate of how long it takes
    bool open = false;
    bool in_flight = false;
    std::optional<Timestamps> timestamps;
    std::vector<DispatchRecord> profiled;
    bool profiling = false;
    std::vector<const char*> ops;  // for the message, should the device fail
  };

  void check_usable();
  Batch& open_batch();
  void append(Command command, std::span<const Binding> bindings, const DispatchLabel& label);
  void submit_if_worthwhile();
  void submit();
  void wait_for_all();
  bool gpu_is_idle();
  void wait_for(Batch& batch);
  void create();
  void destroy() noexcept;

  Device& device_;
  std::mutex mutex_;
  VkCommandPool command_pool_ = VK_NULL_HANDLE;
  std::vector<std::unique_ptr<Batch>> batches_;  // a ring
  size_t current_ = 0;
  HazardTracker hazards_;
  Scope since_barrier_;  // what was recorded since the last barrier does
  Arena downloads_;
  size_t seen_messages_ = 0;
};

}  // namespace q8ta::vulkan
