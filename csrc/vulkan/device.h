#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>

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

  /// vkQueueSubmit with the queue locked.
  void submit(VkCommandBuffer commands, VkFence fence);

 private:
  void create(const Instance& instance);
  void destroy();

  DeviceInfo info_;
  ValidationMode validation_ = ValidationMode::off;
  VkDeviceSize binding_alignment_ = 0;
  VkDevice device_ = VK_NULL_HANDLE;
  VolkDeviceTable api_{};
  VkQueue queue_ = VK_NULL_HANDLE;
  std::mutex queue_mutex_;
  VmaAllocator allocator_ = VK_NULL_HANDLE;
  std::unique_ptr<PipelineCache> pipelines_;
  std::unique_ptr<StreamPool> streams_;
  std::unique_ptr<MemoryPool> memory_;
  std::unique_ptr<DeviceStream> stream_;
};

}  // namespace q8ta::vulkan
