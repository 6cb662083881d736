#include "kernels/host_weight_cache.h"

#include <pthread.h>

#include <utility>

namespace q8ta::kernels {
namespace {

std::mutex* mutex_of_forks = nullptr;

}  // namespace

HostWeightCache& HostWeightCache::instance() {
  // Never destroyed: other threads may compute while the process ends.
  static HostWeightCache& cache = *std::make_unique<HostWeightCache>().release();
  return cache;
}

HostWeightCache::HostWeightCache() {
  // A child must not find the mutex locked by a thread that it does not have.
  mutex_of_forks = &mutex_;
  pthread_atfork([] { mutex_of_forks->lock(); }, [] { mutex_of_forks->unlock(); },
                 [] { mutex_of_forks->unlock(); });
}

CachedHostWeights HostWeightCache::count_rows(const WeightKey& key, const ContentMark& content,
                                              int64_t rows) {
  // Weights that were never packed are not watched, so nobody says that they are gone.
  constexpr size_t kMostEntries = 4096;
  CachedHostWeights outdated;  // destroyed when the lock is gone
  const std::lock_guard lock(mutex_);
  if (entries_.size() > kMostEntries) {
    std::erase_if(entries_, [](const auto& entry) { return entry.second.packed == nullptr; });
  }
  CachedHostWeights& entry = entries_[key];
  if (entry.rows_seen > 0 && entry.content != content) outdated = std::exchange(entry, {});
  entry.content = content;
  entry.rows_seen += rows;
  return entry;
}

void HostWeightCache::store(const WeightKey& key, CachedHostWeights weights) {
  const std::lock_guard lock(mutex_);
  std::swap(entries_[key], weights);  // the old ones are destroyed when the lock is gone
}

void HostWeightCache::forget(const void* begin, size_t bytes) {
  const auto first = reinterpret_cast<std::uintptr_t>(begin);
  const std::lock_guard lock(mutex_);
  std::erase_if(entries_, [first, bytes](const auto& entry) {
    const auto address = reinterpret_cast<std::uintptr_t>(entry.first.data);
    return address >= first && address - first < bytes;
  });
}

void HostWeightCache::clear() {
  decltype(entries_) dropped;
  const std::lock_guard lock(mutex_);
  entries_.swap(dropped);
}

size_t HostWeightCache::bytes() {
  const std::lock_guard lock(mutex_);
  size_t total = 0;
  for (const auto& [key, entry] : entries_) {
    if (entry.packed != nullptr) total += entry.packed->bytes();
  }
  return total;
}

}  // namespace q8ta::kernels
