#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <unordered_map>
#include <vector>

#include "vulkan/buffer.h"
#include "vulkan/memory_statistics.h"

namespace q8ta::vulkan {

class DeviceBlock;
class MemoryPool;

/// Blocks that nobody uses, by their size: the one that was freed last, which leads to the others. So a block
/// can be freed without memory for a list, and freeing never fails.
using FreeBlocks = std::unordered_map<VkDeviceSize, DeviceBlock*>;

/// Device memory of one tensor storage. Move-less: what refers to it keeps its address.
class DeviceBlock {
 public:
  DeviceBlock(Device& device, MemoryPool& pool, VkDeviceSize bytes);
  ~DeviceBlock();
  DeviceBlock(const DeviceBlock&) = delete;
  DeviceBlock& operator=(const DeviceBlock&) = delete;

  MemoryPool& pool() const { return pool_; }
  const Buffer& buffer() const { return buffer_; }

  /// Stands for the memory where a pointer is wanted. Reserved address space: unique, no one can read it, and
  /// it begins with a page, so that an address is aligned as its place in the buffer is.
  void* address() const { return address_; }

 private:
  friend class MemoryPool;

  MemoryPool& pool_;
  Buffer buffer_;
  void* address_ = nullptr;
  // The pool's, under its mutex.
  DeviceBlock** free_blocks_ = nullptr;  // where the block goes when it is freed
  DeviceBlock* next_free_ = nullptr;     // behind it there
  uint32_t owners_ = 0;                  // storages that have it: a tensor's, and the host's views of that
  VkDeviceSize requested_ = 0;           // by whom it was handed out to
  uint32_t graphs_ = 0;                  // that work on it: nobody else gets it
  bool in_capture_ = false;              // allocated while a graph is captured that has not ended yet
};

/// Hands out blocks of device memory and keeps freed ones for the next request of their size. A freed block
/// may be handed out while the GPU still works on it: all work on blocks goes through one DeviceStream, which
/// keeps the order. Thread-safe.
class MemoryPool {
 public:
  explicit MemoryPool(Device& device) : device_(device) {}

  /// `bytes` > 0. Throws OutOfMemory with the sizes. While the calling thread captures a graph, the memory is
  /// the graph's: what is freed meanwhile goes to the same capture only.
  DeviceBlock* allocate(VkDeviceSize bytes);
  /// For another owner of a block in use, who frees it, too.
  void share(DeviceBlock* block);
  void free(DeviceBlock* block);

  /// The block in use that an address is in; null if there is none.
  DeviceBlock* find(const void* address) const;

  /// Gives cached blocks back to the driver. Waits for the GPU first.
  void empty_cache();

  MemoryStatistics statistics() const;
  void reset_peaks();
  void reset_accumulated();

  /// Memory of a graph, from the beginning of its capture to the graph's end.
  struct GraphMemory {
    FreeBlocks free;                                  ///< for the rest of the capture
    std::vector<DeviceBlock*> blocks;                 ///< allocated by the capture
    std::unordered_map<uint64_t, DeviceBlock*> used;  ///< by the graph's commands, by Buffer's id
  };

  /// The graph works on the buffer: from now on its memory goes to nobody else, even if it is freed.
  void use(GraphMemory& memory, uint64_t buffer_id);

  /// The capture is over: what it allocated and the graph does not use is free for everybody.
  void end_capture(GraphMemory& memory);

  /// The graph is no more.
  void release(GraphMemory& memory);

  /// Whether a capture that has not ended has allocated the buffer's memory.
  bool in_capture(uint64_t buffer_id) const;

 private:
  std::unique_ptr<DeviceBlock> allocate_block(VkDeviceSize size);
  VkDeviceSize rounded(VkDeviceSize bytes) const;
  DeviceBlock* add_block(std::unique_ptr<DeviceBlock> made);
  DeviceBlock* take_free(FreeBlocks& free, VkDeviceSize size);
  void put_free(DeviceBlock* block);
  void count(uint64_t MemoryStatistics::* event);

  Device& device_;
  mutable std::mutex mutex_;
  std::map<const void*, std::unique_ptr<DeviceBlock>> blocks_;  // all of them, by address
  std::unordered_map<uint64_t, DeviceBlock*> by_buffer_;        // the same, by Buffer's id
  FreeBlocks cached_;
  MemoryStatistics statistics_;
};

}  // namespace q8ta::vulkan
