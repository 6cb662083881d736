#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <unordered_map>

#include "kernels/host_packed_weights.h"
#include "kernels/weight_cache.h"

namespace q8ta::kernels {

/// What the cache knows of weights that are in use. `packed` is null until they are packed.
struct CachedHostWeights {
  std::shared_ptr<const HostPackedWeights> packed;
  ContentMark content;
  int64_t rows_seen = 0;             ///< of x, over all calls with this content
  std::shared_ptr<void> keep_alive;  ///< the tensor, where nobody would call forget()
};

/// The process's weights that were packed for the host kernel: at most one packed copy of each, kept until
/// the content changes, until forget() says that the memory is gone, or until clear(). Thread-safe, and
/// usable in a forked child; weights in use outlive their entry.
class HostWeightCache {
 public:
  static HostWeightCache& instance();
  HostWeightCache();

  /// Counts `rows` more rows of x for the weights and returns what is known of them. Another content than
  /// before begins anew.
  CachedHostWeights count_rows(const WeightKey& key, const ContentMark& content, int64_t rows);
  void store(const WeightKey& key, CachedHostWeights weights);

  /// Drops what was made from memory in [begin, begin + bytes).
  void forget(const void* begin, size_t bytes);
  void clear();

  /// Bytes of the packed copies.
  size_t bytes();

 private:
  struct Hash {
    size_t operator()(const WeightKey& key) const { return std::hash<const void*>()(key.data); }
  };

  std::mutex mutex_;
  std::unordered_map<WeightKey, CachedHostWeights, Hash> entries_;
};

}  // namespace q8ta::kernels
