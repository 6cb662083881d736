#include "kernels/weight_cache.h"

#include <atomic>

namespace q8ta::kernels {
namespace {

std::atomic<StorageWatcher> watcher{nullptr};

}  // namespace

WeightCache& WeightCache::instance() {
  // Never destroyed: its buffers belong to devices that live as long as the process (vulkan::Context).
  static WeightCache& cache = *std::make_unique<WeightCache>().release();
  return cache;
}

void set_storage_watcher(StorageWatcher new_watcher) { watcher.store(new_watcher); }

StorageWatcher storage_watcher() { return watcher.load(); }

}  // namespace q8ta::kernels
