#include "vulkan/memory_pool.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <string>

#include "vulkan/device.h"
#include "vulkan/device_stream.h"
#include "vulkan/error.h"
#include "vulkan/fork.h"

namespace q8ta::vulkan {

DeviceBlock::DeviceBlock(Device& device, MemoryPool& pool, VkDeviceSize bytes)
    : pool_(pool), buffer_(device, MemoryUse::device_local, bytes) {
  address_ = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (address_ == MAP_FAILED) {
    throw Error("could not reserve " + std::to_string(bytes) +
                " bytes of address space: " + std::strerror(errno));
  }
}

DeviceBlock::~DeviceBlock() { munmap(address_, buffer_.size()); }

VkDeviceSize MemoryPool::rounded(VkDeviceSize bytes) const {
  // GPU-assisted validation compares accesses with the size of the buffer: there it is exact.
  if (device_.validation() == ValidationMode::gpu_assisted) return round_up(bytes, 4);
  // Eight sizes from one power of two to the next: at most an eighth is lost, and sizes come again.
  constexpr VkDeviceSize kSmallest = 512;
  if (bytes <= kSmallest) return kSmallest;
  return round_up(bytes, std::max<VkDeviceSize>(std::bit_floor(bytes) / 8, kSmallest / 8));
}

DeviceBlock* MemoryPool::allocate(VkDeviceSize bytes) {
  const VkDeviceSize size = rounded(bytes);
  std::unique_ptr<DeviceBlock> block;
  {
    const std::lock_guard lock(mutex_);
    const auto found = cached_.find(size);
    if (found != cached_.end() && !found->second.empty()) {
      block = std::move(found->second.back());
      found->second.pop_back();
      ++statistics_.cache_hits;
    }
  }
  const bool is_new = block == nullptr;
  if (is_new) block = make_block(size);

  const std::lock_guard lock(mutex_);
  DeviceBlock* handed_out = block.get();
  in_use_.emplace(handed_out, std::move(block));
  if (is_new) statistics_.reserved_bytes += size;
  statistics_.allocated_bytes += size;
  ++statistics_.allocations;
  statistics_.peak_reserved_bytes = std::max(statistics_.peak_reserved_bytes, statistics_.reserved_bytes);
  statistics_.peak_allocated_bytes = std::max(statistics_.peak_allocated_bytes, statistics_.allocated_bytes);
  return handed_out;
}

std::unique_ptr<DeviceBlock> MemoryPool::make_block(VkDeviceSize size) {
  try {
    return std::make_unique<DeviceBlock>(device_, *this, size);
  } catch (const OutOfMemory&) {
    empty_cache();
  }
  try {
    return std::make_unique<DeviceBlock>(device_, *this, size);
  } catch (const OutOfMemory& error) {
    const Statistics now = statistics();
    throw OutOfMemory(std::string(error.what()) + "; tensors take " + std::to_string(now.allocated_bytes) +
                      " bytes of it");
  }
}

void MemoryPool::free(DeviceBlock* block) {
  if (inherited_by_fork()) return;  // a thread that is not here may have held the mutex
  const std::lock_guard lock(mutex_);
  const auto found = in_use_.find(block);
  const VkDeviceSize size = block->buffer().size();
  cached_[size].push_back(std::move(found->second));
  in_use_.erase(found);
  statistics_.allocated_bytes -= size;
  ++statistics_.frees;
}

void MemoryPool::empty_cache() {
  std::map<VkDeviceSize, std::vector<std::unique_ptr<DeviceBlock>>> taken;
  {
    const std::lock_guard lock(mutex_);
    std::swap(taken, cached_);
    for (const auto& [size, blocks] : taken) statistics_.reserved_bytes -= size * blocks.size();
  }
  if (!taken.empty()) device_.stream().synchronize();  // nothing can be recorded on them any more
}

MemoryPool::Statistics MemoryPool::statistics() const {
  const std::lock_guard lock(mutex_);
  return statistics_;
}

void MemoryPool::reset_peaks() {
  const std::lock_guard lock(mutex_);
  statistics_.peak_reserved_bytes = statistics_.reserved_bytes;
  statistics_.peak_allocated_bytes = statistics_.allocated_bytes;
}

}  // namespace q8ta::vulkan
