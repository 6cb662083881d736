#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>

#include "vulkan/device_info.h"
#include "vulkan/pipeline.h"
#include "vulkan/validation.h"
#include "vulkan/vma.h"

namespace q8ta::vulkan {

class Instance;
class StreamPool;
class DeviceStream;
class MemoryPool;

constexpr VkDeviceSize round_up(VkDeviceSize value, VkDeviceSize multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

/// A logical device with its queue, allocator and pipelines. Thread-safe.
class Device {
 public:
  Device(const Instance& instance, const DeviceInfo& info);
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  const DeviceInfo& info() const { return info_; }
  VkDevice handle() const { return device_; }
  const VolkDeviceTable& api() const { return api_; }
  VmaAllocator allocator() const { return allocator_; }
  PipelineCache& pipelines() { return *pipelines_; }
  StreamPool& streams() { return *streams_; }
  DeviceStream& stream() { return *stream_; }
  MemoryPool& memory() { return *memory_; }
  ValidationMode validation() const { return validation_; }
  bool validating() const { return validation_ != ValidationMode::off; }

  /// Offsets of storage buffer bindings are multiples of this.
  VkDeviceSize binding_alignment() const { return binding_alignment_; }

  /// The most bytes that one binding may cover.
  VkDeviceSize max_binding_bytes() const { return info_.limits.maxStorageBufferRange; }

  std::optional<uint32_t> find_memory_type(uint32_t type_bits, VkMemoryPropertyFlags wanted) const;

  /// vkQueueSubmit with the queue locked. A driver that is short of memory is asked once more, when the GPU
  /// has nothing else to do. If it throws, nothing was submitted.
  void submit(std::span<const VkCommandBuffer> commands, VkFence fence);

  /// Returns when nothing runs any more, be it because the device is lost.
  void wait_idle() noexcept;

  /// Throws like check(), and remembers a loss of the device.
  void check_result(VkResult result, const char* call);

  /// From now on the device counts as lost: `call` said so, or fails for ever.
  void set_lost(const char* call, VkResult result) noexcept;
  /// What was queued on it then, for what DeviceLost says from now on. The first to say it counts.
  void set_lost_ops(std::string ops);
  bool lost() const { return lost_.load(std::memory_order_relaxed); }
  /// Throws DeviceLost.
  void check_not_lost() const {
    if (lost_.load(std::memory_order_acquire)) throw_lost();
  }

 private:
  void create(const Instance& instance);
  void destroy();
  VkResult submit_once(std::span<const VkCommandBuffer> commands, VkFence fence);
  [[noreturn]] void throw_lost() const;

  DeviceInfo info_;
  ValidationMode validation_ = ValidationMode::off;
  VkDeviceSize binding_alignment_ = 0;
  VkDevice device_ = VK_NULL_HANDLE;
  VolkDeviceTable api_{};
  VkQueue queue_ = VK_NULL_HANDLE;
  std::mutex queue_mutex_;
  std::atomic<bool> lost_{false};
  mutable std::mutex lost_mutex_;
  const char* lost_in_ = nullptr;  // written before lost_
  VkResult lost_by_ = VK_SUCCESS;
  std::string lost_ops_;
  VmaAllocator allocator_ = VK_NULL_HANDLE;
  std::unique_ptr<PipelineCache> pipelines_;
  std::unique_ptr<StreamPool> streams_;
  std::unique_ptr<MemoryPool> memory_;
  std::unique_ptr<DeviceStream> stream_;
};

}  // namespace q8ta::vulkan
