#include "kernels/weight_cache.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <utility>

#include "vulkan/device.h"
#include "vulkan/fork.h"

namespace q8ta::kernels {
namespace {

std::atomic<StorageWatcher> watcher{nullptr};

}  // namespace

uint64_t sample_bytes(const void* data, size_t bytes) {
  constexpr size_t kSamples = 16;
  const auto* memory = static_cast<const std::byte*>(data);
  uint64_t hash = bytes;
  for (size_t i = 0; i < kSamples; ++i) {
    uint64_t word = 0;
    const size_t size = std::min(sizeof(word), bytes);
    std::memcpy(&word, memory + (bytes - size) * i / (kSamples - 1), size);
    hash = (hash ^ word) * 0x9E37'79B9'7F4A'7C15U;
    hash ^= hash >> 32;
  }
  return hash;
}

WeightCache& WeightCache::instance() {
  // Never destroyed: its buffers belong to devices that live as long as the process (vulkan::Context).
  static WeightCache& cache = *std::make_unique<WeightCache>().release();
  return cache;
}

std::optional<CachedWeights> WeightCache::find(const WeightKey& key) {
  const std::lock_guard lock(mutex_);
  const auto found = entries_.find(key);
  if (found == entries_.end()) return std::nullopt;
  return found->second;
}

void WeightCache::store(const WeightKey& key, CachedWeights weights) {
  const std::lock_guard lock(mutex_);
  std::erase_if(entries_, [](const auto& entry) { return entry.first.device->lost(); });
  std::swap(entries_[key], weights);  // the old ones are destroyed when the lock is gone
}

void WeightCache::forget(const void* begin, size_t bytes) {
  if (vulkan::inherited_by_fork()) return;  // a thread that is not here may have held the mutex
  const auto first = reinterpret_cast<std::uintptr_t>(begin);
  const std::lock_guard lock(mutex_);
  std::erase_if(entries_, [first, bytes](const auto& entry) {
    const auto address = reinterpret_cast<std::uintptr_t>(entry.first.data);
    return address >= first && address - first < bytes;
  });
}

void WeightCache::clear() {
  if (vulkan::inherited_by_fork()) return;
  std::vector<Part> parts;
  {
    const std::lock_guard lock(mutex_);
    entries_.clear();
    parts = parts_;
  }
  for (const Part& part : parts) part.clear();
}

size_t WeightCache::bytes() {
  if (vulkan::inherited_by_fork()) return 0;
  std::vector<Part> parts;
  size_t total = 0;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [key, entry] : entries_) total += entry.weights->bytes() + entry.channels->bytes();
    parts = parts_;
  }
  for (const Part& part : parts) total += part.bytes();
  return total;
}

bool WeightCache::drop_spare() {
  std::vector<Part> parts;
  {
    const std::lock_guard lock(mutex_);
    parts = parts_;
  }
  bool dropped = false;
  for (const Part& part : parts) dropped = part.drop_spare() || dropped;
  return dropped;
}

void WeightCache::add_part(Part part) {
  const std::lock_guard lock(mutex_);
  parts_.push_back(std::move(part));
}

void set_storage_watcher(StorageWatcher new_watcher) { watcher.store(new_watcher); }

StorageWatcher storage_watcher() { return watcher.load(); }

}  // namespace q8ta::kernels
