#pragma once

#include "kernels/storage_cache.h"
#include "kernels/weights.h"

namespace q8ta::kernels {

/// The process's packed weights and channel parameters.
struct WeightCache {
  StorageCache<DeviceWeights> weights;
  StorageCache<DeviceChannels> channels;

  static WeightCache& instance();

  void forget(const void* begin, size_t bytes) {
    weights.forget(begin, bytes);
    channels.forget(begin, bytes);
  }
  void clear() {
    weights.clear();
    channels.clear();
  }
  size_t bytes() { return weights.bytes() + channels.bytes(); }
};

/// Called with a new owning AtenTensorHandle, once for every tensor that a value is cached for. True if the
/// callee will call WeightCache::forget when the tensor's storage dies; the cache then does not keep the
/// tensor alive.
using StorageWatcher = bool (*)(void* tensor_handle);
void set_storage_watcher(StorageWatcher watcher);
StorageWatcher storage_watcher();

}  // namespace q8ta::kernels
