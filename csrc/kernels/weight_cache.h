#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <vector>

#include "kernels/weights.h"
#include "vulkan/error.h"

namespace q8ta::kernels {

/// Where weights lie and how; all that a lookup compares. Whether they have changed since is a question of
/// their ContentMark, which may be asked later.
struct WeightKey {
  const vulkan::Device* device;
  const void* data;
  int64_t N, K, row_stride, column_stride;

  bool operator==(const WeightKey&) const = default;
};

/// Tells apart what has lain at one address.
struct ContentMark {
  int64_t version;  ///< of the tensor; an in-place edit raises it
  uint64_t sample;  ///< sample_bytes of the memory

  bool operator==(const ContentMark&) const = default;
};

/// A hash of a few words of the memory. It costs less than a microsecond and tells most contents apart that
/// reached the same address without raising a version: memory that a resized storage left to another tensor,
/// edits of inference tensors, edits through NumPy.
uint64_t sample_bytes(const void* data, size_t bytes);

/// Weights on a device and the channel parameters that they were last used with.
struct CachedWeights {
  std::shared_ptr<const DeviceWeights> weights;
  std::shared_ptr<const DeviceChannels> channels;
  ContentMark content;
  std::shared_ptr<void> keep_alive;  ///< the tensor, where nobody would call forget()
};

/// The process's packed weights, kept until they are replaced, until forget() says that their memory is gone,
/// or until clear(). Thread-safe; weights in use outlive their entry.
class WeightCache {
 public:
  static WeightCache& instance();

  std::optional<CachedWeights> find(const WeightKey& key);
  void store(const WeightKey& key, CachedWeights weights);

  /// Drops what was made from memory in [begin, begin + bytes).
  void forget(const void* begin, size_t bytes);
  void clear();

  /// Bytes on the devices.
  size_t bytes();

  /// Frees what calls are only faster with, for a call that memory has run out for. False if there is none.
  bool drop_spare();

  /// Packed weights that are kept elsewhere (those of vk tensors).
  struct Part {
    std::function<void()> clear;
    std::function<size_t()> bytes;
    std::function<bool()> drop_spare;
  };
  void add_part(Part part);

 private:
  struct Hash {
    size_t operator()(const WeightKey& key) const { return std::hash<const void*>()(key.data); }
  };

  std::mutex mutex_;
  std::unordered_map<WeightKey, CachedWeights, Hash> entries_;
  std::vector<Part> parts_;
};

/// Does work that takes memory of a device by itself, and where that has run out does it again without what
/// is spare. Nothing of it may be wrong if it is begun twice.
template <typename Work>
auto with_spare_memory(Work work) {
  try {
    return work();
  } catch (const vulkan::OutOfMemory&) {
    if (!WeightCache::instance().drop_spare()) throw;
  }
  return work();
}

/// Called with a new owning AtenTensorHandle for each tensor that is cached. True if the callee will call
/// WeightCache::forget when the tensor's storage dies; else the cache keeps the tensor alive.
using StorageWatcher = bool (*)(void* tensor_handle);
void set_storage_watcher(StorageWatcher watcher);
StorageWatcher storage_watcher();

}  // namespace q8ta::kernels
