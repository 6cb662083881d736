#include "vulkan/memory_pool.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <iterator>
#include <string>
#include <utility>

#include "vulkan/capture.h"
#include "vulkan/device.h"
#include "vulkan/device_stream.h"
#include "vulkan/error.h"
#include "vulkan/fork.h"
#include "vulkan/make_room.h"

namespace q8ta::vulkan {

DeviceBlock::DeviceBlock(Device& device, MemoryPool& pool, VkDeviceSize bytes)
    : pool_(pool),
      buffer_(device, device.info().host_visible_memory ? MemoryUse::shared : MemoryUse::device_local,
              bytes) {
  address_ = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (address_ == MAP_FAILED) {
    throw OutOfMemory("could not reserve " + std::to_string(bytes) +
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

DeviceBlock* MemoryPool::take_free(FreeBlocks& free, VkDeviceSize size) {
  const auto found = free.find(size);
  if (found == free.end() || found->second == nullptr) return nullptr;
  DeviceBlock* block = found->second;
  found->second = block->next_free_;
  return block;
}

void MemoryPool::put_free(DeviceBlock* block) {
  block->next_free_ = *block->free_blocks_;
  *block->free_blocks_ = block;
}

DeviceBlock* MemoryPool::add_block(std::unique_ptr<DeviceBlock> made) {
  DeviceBlock* block = made.get();
  const VkDeviceSize size = block->buffer().size();
  block->free_blocks_ = &cached_[size];
  by_buffer_.emplace(block->buffer().range().buffer_id, block);
  try {
    blocks_.emplace(block->address(), std::move(made));
  } catch (...) {
    by_buffer_.erase(block->buffer().range().buffer_id);
    throw;
  }
  statistics_.reserved_bytes.add(size);
  statistics_.segments.add(1);
  return block;
}

DeviceBlock* MemoryPool::allocate(VkDeviceSize bytes) {
  const VkDeviceSize size = rounded(bytes);
  Capture* capture = Capture::of_this_thread(device_);
  std::unique_lock lock(mutex_);
  DeviceBlock** free_in_capture = nullptr;
  if (capture != nullptr) {  // room first: a block that was taken must arrive
    free_in_capture = &capture->memory().free[size];
    make_room(capture->memory().blocks);
  }
  DeviceBlock* block = capture == nullptr ? nullptr : take_free(capture->memory().free, size);
  if (block == nullptr) block = take_free(cached_, size);
  if (block != nullptr) {
    ++statistics_.cache_hits;
  } else {
    lock.unlock();
    std::unique_ptr<DeviceBlock> made = allocate_block(size);
    lock.lock();
    block = add_block(std::move(made));
  }
  if (capture != nullptr && !block->in_capture_) {
    block->in_capture_ = true;
    block->free_blocks_ = free_in_capture;
    capture->memory().blocks.push_back(block);
  }
  block->owners_ = 1;
  block->requested_ = bytes;
  statistics_.blocks.add(1);
  statistics_.allocated_bytes.add(size);
  statistics_.requested_bytes.add(bytes);
  return block;
}

std::unique_ptr<DeviceBlock> MemoryPool::allocate_block(VkDeviceSize size) {
  try {
    return std::make_unique<DeviceBlock>(device_, *this, size);
  } catch (const OutOfMemory&) {
    empty_cache();
  }
  count(&MemoryStatistics::retries);
  try {
    return std::make_unique<DeviceBlock>(device_, *this, size);
  } catch (const OutOfMemory& error) {
    count(&MemoryStatistics::out_of_memory);
    throw OutOfMemory(std::string(error.what()) + "; tensors take " +
                      std::to_string(statistics().allocated_bytes.current) + " bytes of it");
  }
}

void MemoryPool::share(DeviceBlock* block) {
  const std::lock_guard lock(mutex_);
  ++block->owners_;
}

void MemoryPool::free(DeviceBlock* block) {
  if (inherited_by_fork()) return;  // a thread that is not here may have held the mutex
  const std::lock_guard lock(mutex_);
  if (--block->owners_ > 0) return;
  if (block->in_capture_ || block->graphs_ == 0) put_free(block);
  statistics_.blocks.remove(1);
  statistics_.allocated_bytes.remove(block->buffer().size());
  statistics_.requested_bytes.remove(block->requested_);
}

DeviceBlock* MemoryPool::find(const void* address) const {
  const std::lock_guard lock(mutex_);
  const auto behind = blocks_.upper_bound(address);
  if (behind == blocks_.begin()) return nullptr;
  DeviceBlock* block = std::prev(behind)->second.get();
  const auto* begin = static_cast<const std::byte*>(block->address());
  const bool inside = static_cast<const std::byte*>(address) < begin + block->buffer().size();
  return inside && block->owners_ > 0 ? block : nullptr;
}

void MemoryPool::empty_cache() {
  std::vector<std::unique_ptr<DeviceBlock>> taken;
  {
    const std::lock_guard lock(mutex_);
    taken.reserve(blocks_.size());
    for (auto& [size, first] : cached_) {
      while (first != nullptr) {
        DeviceBlock* block = std::exchange(first, first->next_free_);
        by_buffer_.erase(block->buffer().range().buffer_id);
        taken.push_back(std::move(blocks_.extract(block->address()).mapped()));
        statistics_.reserved_bytes.remove(size);
        statistics_.segments.remove(1);
      }
    }
  }
  if (taken.empty()) return;
  try {
    device_.stream().finish();  // nothing can be recorded on them any more
  } catch (...) {               // what is queued may still work on them
    const std::lock_guard lock(mutex_);
    for (std::unique_ptr<DeviceBlock>& block : taken) put_free(add_block(std::move(block)));
    throw;
  }
}

MemoryStatistics MemoryPool::statistics() const {
  const std::lock_guard lock(mutex_);
  return statistics_;
}

void MemoryPool::reset_peaks() {
  const std::lock_guard lock(mutex_);
  statistics_.reset_peaks();
}

void MemoryPool::reset_accumulated() {
  const std::lock_guard lock(mutex_);
  statistics_.reset_accumulated();
}

void MemoryPool::count(uint64_t MemoryStatistics::* event) {
  const std::lock_guard lock(mutex_);
  ++(statistics_.*event);
}

void MemoryPool::use(GraphMemory& memory, uint64_t buffer_id) {
  const std::lock_guard lock(mutex_);
  const auto found = by_buffer_.find(buffer_id);
  if (found == by_buffer_.end() || !memory.used.emplace(buffer_id, found->second).second) return;
  ++found->second->graphs_;
}

void MemoryPool::end_capture(GraphMemory& memory) {
  const std::lock_guard lock(mutex_);
  for (DeviceBlock* block : memory.blocks) {
    block->in_capture_ = false;
    block->free_blocks_ = &cached_[block->buffer().size()];
    if (block->owners_ == 0 && block->graphs_ == 0) put_free(block);
  }
  memory.blocks.clear();
  memory.free.clear();
}

void MemoryPool::release(GraphMemory& memory) {
  const std::lock_guard lock(mutex_);
  for (const auto& [buffer_id, block] : memory.used) {
    if (--block->graphs_ == 0 && block->owners_ == 0 && !block->in_capture_) put_free(block);
  }
  memory.used.clear();
}

bool MemoryPool::in_capture(uint64_t buffer_id) const {
  const std::lock_guard lock(mutex_);
  const auto found = by_buffer_.find(buffer_id);
  return found != by_buffer_.end() && found->second->in_capture_;
}

}  // namespace q8ta::vulkan
