#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "vulkan/buffer.h"

namespace q8ta::vulkan {

class MemoryPool;

/// Device memory of one tensor storage. Move-less: what refers to it keeps its address.
class DeviceBlock {
 public:
  DeviceBlock(Device& device, MemoryPool& pool, VkDeviceSize bytes);
  ~DeviceBlock();
  DeviceBlock(const DeviceBlock&) = delete;
  DeviceBlock& operator=(const DeviceBlock&) = delete;

  MemoryPool& pool() const { return pool_; }
  const Buffer& buffer() const { return buffer_; }

  /// Stands for the memory where a pointer is wanted. Reserved address space: unique, and no one can read it.
  void* address() const { return address_; }

 private:
  MemoryPool& pool_;
  Buffer buffer_;
  void* address_ = nullptr;
};

/// Hands out blocks of device memory and keeps freed ones for the next request of their size. A freed block
/// may be handed out while the GPU still works on it: all work on blocks goes through one DeviceStream, which
/// keeps the order. Thread-safe.
class MemoryPool {
 public:
  explicit MemoryPool(Device& device) : device_(device) {}

  /// `bytes` > 0. Throws OutOfMemory with the sizes.
  DeviceBlock* allocate(VkDeviceSize bytes);
  void free(DeviceBlock* block);

  /// Gives cached blocks back to the driver. Waits for the GPU first.
  void empty_cache();

  struct Statistics {
    uint64_t allocated_bytes = 0, peak_allocated_bytes = 0;  ///< of blocks that are handed out
    uint64_t reserved_bytes = 0, peak_reserved_bytes = 0;    ///< those and the cached ones
    uint64_t allocations = 0, frees = 0, cache_hits = 0;
  };
  Statistics statistics() const;
  void reset_peaks();

 private:
  std::unique_ptr<DeviceBlock> make_block(VkDeviceSize size);
  VkDeviceSize rounded(VkDeviceSize bytes) const;

  Device& device_;
  mutable std::mutex mutex_;
  std::unordered_map<DeviceBlock*, std::unique_ptr<DeviceBlock>> in_use_;
  std::map<VkDeviceSize, std::vector<std::unique_ptr<DeviceBlock>>> cached_;
  Statistics statistics_;
};

}  // namespace q8ta::vulkan
