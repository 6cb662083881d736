#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>

#include "vulkan/vma.h"

namespace q8ta::vulkan {

class Device;

/// Part of a buffer, in bytes; what a descriptor binds.
struct BufferRange {
  VkBuffer buffer = VK_NULL_HANDLE;
  uint64_t buffer_id = 0;  ///< never used twice, unlike the handle of a destroyed buffer
  VkDeviceSize offset = 0;
  VkDeviceSize size = 0;

  BufferRange subrange(VkDeviceSize first, VkDeviceSize bytes) const {
    return {buffer, buffer_id, offset + first, bytes};
  }

  bool operator==(const BufferRange&) const = default;
};

enum class MemoryUse {
  device_local,  ///< only the GPU touches it
  shared,        ///< the same, and mapped where a type of memory that is the host's, too, has room
  upload,        ///< written by the host in order, read by the GPU; in device memory where that can be mapped
  download,      ///< written by the GPU, read by the host; cached host memory
};

/// A storage buffer with its memory. Move-only.
class Buffer {
 public:
  Buffer(Device& device, MemoryUse use, VkDeviceSize size);
  ~Buffer();
  Buffer(Buffer&& other) noexcept;
  Buffer& operator=(Buffer&& other) noexcept;

  /// Wraps host memory without a copy. `pointer` and `size` must be multiples of the device's
  /// host_import_alignment (drivers accept misaligned pointers and then go wrong, so this is checked here).
  /// Empty when the device or the driver refuses; the caller then stages.
  static std::optional<Buffer> import_host(Device& device, void* pointer, VkDeviceSize size);

  VkDeviceSize size() const { return size_; }
  BufferRange range() const { return {buffer_, id_, 0, size_}; }
  /// Where the host has it; null if it has not, and for `shared` memory that is not coherent.
  std::byte* mapped() const { return mapped_; }

  /// For memory that is not coherent; VMA rounds to nonCoherentAtomSize and does nothing on coherent memory.
  void flush(VkDeviceSize offset, VkDeviceSize bytes) const;
  void invalidate(VkDeviceSize offset, VkDeviceSize bytes) const;

 private:
  explicit Buffer(Device& device);
  void swap(Buffer& other) noexcept;

  Device* device_ = nullptr;
  uint64_t id_ = 0;
  VkBuffer buffer_ = VK_NULL_HANDLE;
  VkDeviceSize size_ = 0;
  VmaAllocation allocation_ = VK_NULL_HANDLE;  // either this ...
  VkDeviceMemory imported_ = VK_NULL_HANDLE;   // ... or this
  std::byte* mapped_ = nullptr;
};

}  // namespace q8ta::vulkan
