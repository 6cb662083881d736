#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

namespace q8ta::kernels {

/// The memory of one tensor that a cached value was made from.
struct CachedSource {
  const void* data;
  int64_t version;  ///< of the tensor; an in-place edit raises it
  uint64_t sample;  ///< sample_bytes of the memory

  bool same_content(const CachedSource& other) const {
    return version == other.version && sample == other.sample;
  }
};

/// A hash of a few words of the memory. It costs less than a microsecond and tells most contents apart that
/// reached the same address without raising a version: memory that a resized storage left to another tensor,
/// edits of inference tensors, edits through NumPy.
uint64_t sample_bytes(const void* data, size_t bytes);

/// Values made from tensors (packed weights, channel parameters), kept until an in-place edit is seen, until
/// forget() says that a tensor's memory is gone, or until clear(). Thread-safe; a value in use outlives its
/// entry.
template <typename Value>
class StorageCache {
 public:
  /// What distinguishes values made from the same memory: device, order, sizes, strides.
  using Shape = std::vector<int64_t>;

  /// The value if it is there and up to date.
  std::shared_ptr<const Value> find(const Shape& shape, const std::vector<CachedSource>& sources) {
    const std::lock_guard lock(mutex_);
    const auto found = entries_.find(key(shape, sources));
    if (found == entries_.end() || !up_to_date(found->second.sources, sources)) return nullptr;
    return found->second.value;
  }

  /// `keep_alive` is held as long as the entry: the tensors themselves where nobody would call forget().
  void insert(const Shape& shape, const std::vector<CachedSource>& sources,
              std::shared_ptr<const Value> value, std::vector<std::shared_ptr<void>> keep_alive) {
    Entry entry{std::move(value), sources, std::move(keep_alive)};
    const std::lock_guard lock(mutex_);
    std::swap(entries_[key(shape, sources)], entry);  // an outdated value is destroyed after the lock's scope
  }

  /// Drops what was made from memory in [begin, begin + bytes).
  void forget(const void* begin, size_t bytes) {
    const auto first = reinterpret_cast<std::uintptr_t>(begin);
    const auto inside = [first, bytes](const CachedSource& source) {
      const auto address = reinterpret_cast<std::uintptr_t>(source.data);
      return address >= first && address - first < bytes;
    };
    const std::lock_guard lock(mutex_);
    std::erase_if(entries_, [&inside](const auto& item) {
      const std::vector<CachedSource>& sources = item.second.sources;
      return std::any_of(sources.begin(), sources.end(), inside);
    });
  }

  void clear() {
    const std::lock_guard lock(mutex_);
    entries_.clear();
  }

  /// Bytes of the cached values.
  size_t bytes() {
    const std::lock_guard lock(mutex_);
    size_t total = 0;
    for (const auto& [unused, entry] : entries_) total += entry.value->bytes();
    return total;
  }

 private:
  struct Entry {
    std::shared_ptr<const Value> value;
    std::vector<CachedSource> sources;
    std::vector<std::shared_ptr<void>> keep_alive;
  };
  using Key = std::pair<Shape, std::vector<const void*>>;

  static Key key(const Shape& shape, const std::vector<CachedSource>& sources) {
    Key key{shape, {}};
    for (const CachedSource& source : sources) key.second.push_back(source.data);
    return key;
  }

  static bool up_to_date(const std::vector<CachedSource>& cached, const std::vector<CachedSource>& now) {
    return std::equal(cached.begin(), cached.end(), now.begin(), now.end(),
                      [](const CachedSource& a, const CachedSource& b) { return a.same_content(b); });
  }

  std::mutex mutex_;
  std::map<Key, Entry> entries_;
};

}  // namespace q8ta::kernels
