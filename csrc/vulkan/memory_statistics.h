#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

namespace q8ta::vulkan {

/// An amount that grows and shrinks.
struct MemoryStatistic {
  uint64_t current = 0, peak = 0;
  uint64_t added = 0, removed = 0;  ///< in all

  void add(uint64_t amount) {
    current += amount;
    added += amount;
    peak = std::max(peak, current);
  }
  void remove(uint64_t amount) {
    current -= amount;
    removed += amount;
  }
};

/// What a MemoryPool has done and holds.
struct MemoryStatistics {
  MemoryStatistic blocks;           ///< that are handed out
  MemoryStatistic allocated_bytes;  ///< of those
  MemoryStatistic requested_bytes;  ///< what was asked for when they were
  MemoryStatistic segments;         ///< all blocks: those, the cached ones and those of graphs
  MemoryStatistic reserved_bytes;   ///< of all
  uint64_t cache_hits = 0;
  uint64_t retries = 0;        ///< of allocations, when cached blocks had been given back
  uint64_t out_of_memory = 0;  ///< in vain

  void reset_peaks() {
    for (MemoryStatistic* each : all()) each->peak = each->current;
  }
  void reset_accumulated() {
    for (MemoryStatistic* each : all()) each->added = each->removed = 0;
    cache_hits = retries = out_of_memory = 0;
  }

 private:
  std::array<MemoryStatistic*, 5> all() {
    return {&blocks, &allocated_bytes, &requested_bytes, &segments, &reserved_bytes};
  }
};

}  // namespace q8ta::vulkan
