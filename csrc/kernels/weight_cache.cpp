#include "kernels/weight_cache.h"

#include <algorithm>
#include <atomic>
#include <cstring>

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

void set_storage_watcher(StorageWatcher new_watcher) { watcher.store(new_watcher); }

StorageWatcher storage_watcher() { return watcher.load(); }

}  // namespace q8ta::kernels
