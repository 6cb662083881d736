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
};

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
    if (found == entries_.end() || found->second.versions != versions(sources)) return nullptr;
    return found->second.value;
  }

  /// `keep_alive` is held as long as the entry: the tensors themselves where nobody would call forget().
  void insert(const Shape& shape, const std::vector<CachedSource>& sources,
              std::shared_ptr<const Value> value, std::vector<std::shared_ptr<void>> keep_alive) {
    Entry entry{std::move(value), versions(sources), data_pointers(sources), std::move(keep_alive)};
    const std::lock_guard lock(mutex_);
    std::swap(entries_[key(shape, sources)], entry);  // an outdated value is destroyed after the lock's scope
  }

  /// Drops what was made from memory in [begin, begin + bytes).
  void forget(const void* begin, size_t bytes) {
    const auto first = reinterpret_cast<std::uintptr_t>(begin);
    const auto inside = [first, bytes](const void* data) {
      const auto address = reinterpret_cast<std::uintptr_t>(data);
      return address >= first && address - first < bytes;
    };
    const std::lock_guard lock(mutex_);
    std::erase_if(entries_, [&inside](const auto& item) {
      const std::vector<const void*>& sources = item.second.sources;
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
    std::vector<int64_t> versions;
    std::vector<const void*> sources;
    std::vector<std::shared_ptr<void>> keep_alive;
  };
  using Key = std::pair<Shape, std::vector<const void*>>;

  static std::vector<const void*> data_pointers(const std::vector<CachedSource>& sources) {
    std::vector<const void*> pointers;
    for (const CachedSource& source : sources) pointers.push_back(source.data);
    return pointers;
  }

  static std::vector<int64_t> versions(const std::vector<CachedSource>& sources) {
    std::vector<int64_t> values;
    for (const CachedSource& source : sources) values.push_back(source.version);
    return values;
  }

  static Key key(const Shape& shape, const std::vector<CachedSource>& sources) {
    return {shape, data_pointers(sources)};
  }

  std::mutex mutex_;
  std::map<Key, Entry> entries_;
};

}  // namespace q8ta::kernels
