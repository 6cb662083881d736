// The hazard tracker, the arena and the memory pool.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "device.h"
#include "samples.h"
#include "threads.h"
#include "vulkan/arena.h"
#include "vulkan/hazard_tracker.h"
#include "vulkan/memory_pool.h"

namespace q8ta::test {
namespace {

using vulkan::Binding;
using vulkan::BufferRange;

BufferRange bytes_of_buffer(uint64_t id, VkDeviceSize offset, VkDeviceSize size) {
  return {reinterpret_cast<VkBuffer>(id), id, offset, size};
}

}  // namespace

TEST_CASE("hazards: every dependency of random dispatches has a barrier, and nothing else has at first") {
  Numbers numbers(5);
  for (int run = 0; run < 200; ++run) {
    vulkan::HazardTracker tracker;
    struct Touched {
      std::array<VkDeviceSize, 2> read, written;  // by byte of 2 buffers, as sets of bits
    };
    Touched since{};
    int barriers = 0;
    for (int i = 0; i < 40; ++i) {
      std::vector<Binding> bindings;
      Touched mine{};
      for (uint32_t b = 0; b <= numbers.below(4); ++b) {
        const uint32_t buffer = numbers.below(2);
        const uint32_t first = numbers.below(60);
        const uint32_t size = 1 + numbers.below(4);
        const bool written = numbers.below(3) == 0;
        bindings.push_back({bytes_of_buffer(buffer + 1, first, size), written});
        (written ? mine.written : mine.read)[buffer] |= ((uint64_t{1} << size) - 1) << first;
      }
      bool dependent = false;
      for (size_t buffer = 0; buffer < 2; ++buffer) {
        dependent |= ((mine.read[buffer] | mine.written[buffer]) & since.written[buffer]) != 0;
        dependent |= (mine.written[buffer] & since.read[buffer]) != 0;
      }
      const bool barrier = tracker.needs_barrier(bindings);
      REQUIRE(barrier == dependent);  // 40 dispatches touch too little for a barrier out of caution
      barriers += static_cast<int>(barrier);
      if (barrier) since = {};
      for (size_t buffer = 0; buffer < 2; ++buffer) {
        since.read[buffer] |= mine.read[buffer];
        since.written[buffer] |= mine.written[buffer];
      }
    }
    CHECK(barriers > 0);
  }
  vulkan::HazardTracker tracker;
  const std::array<Binding, 1> reads{Binding{bytes_of_buffer(1, 0, 4)}};
  CHECK_FALSE(tracker.needs_barrier(reads));
  tracker.touch_everything();
  CHECK(tracker.needs_barrier(reads));
  CHECK_FALSE(tracker.needs_barrier(reads));
}

TEST_CASE("arena: pieces are aligned, apart and writable, and their memory comes again") {
  vulkan::Arena arena(device(), vulkan::MemoryUse::upload);
  Numbers numbers(7);
  for (int round = 0; round < 5; ++round) {
    std::vector<vulkan::Arena::Piece> pieces;
    std::map<uint64_t, std::set<std::pair<VkDeviceSize, VkDeviceSize>>> ranges;
    for (int i = 0; i < 60; ++i) {
      const VkDeviceSize bytes = numbers.below(1U << numbers.below(20));
      pieces.push_back(arena.allocate(bytes));
      const BufferRange& range = pieces.back().range;
      REQUIRE(range.size >= std::max<VkDeviceSize>(bytes, 1));
      REQUIRE(range.size % 4 == 0);
      REQUIRE(range.offset % device().binding_alignment() == 0);
      REQUIRE(range.offset + range.size <= pieces.back().buffer->size());
      REQUIRE(ranges[range.buffer_id].emplace(range.offset, range.offset + range.size).second);
      std::memset(pieces.back().mapped(), i, range.size);
      pieces.back().flush();
    }
    for (const auto& [buffer, placed] : ranges) {
      VkDeviceSize end = 0;
      for (const auto& [begin, behind] : placed) {
        REQUIRE(begin >= end);
        end = behind;
      }
    }
    for (size_t i = 0; i < pieces.size(); ++i) {
      REQUIRE(pieces[i].mapped()[pieces[i].range.size - 1] == static_cast<std::byte>(i));
    }
    arena.reset();
  }
}

TEST_CASE("memory pool: blocks of their own, found by address, counted") {
  vulkan::MemoryPool& pool = device().memory();
  pool.empty_cache();
  const vulkan::MemoryStatistics before = pool.statistics();
  const std::string failure = failure_in_threads(6, [&](int thread) {
    Numbers numbers(static_cast<uint64_t>(thread));
    std::vector<std::pair<vulkan::DeviceBlock*, size_t>> mine;
    for (int i = 0; i < 150; ++i) {
      if (mine.size() < 20 && numbers.below(2) == 0) {
        const size_t bytes = 1 + numbers.below(1U << numbers.below(18));
        vulkan::DeviceBlock* block = pool.allocate(bytes);
        require(block->buffer().size() >= bytes, "a block is too small");
        require(reinterpret_cast<uintptr_t>(block->address()) % 4096 == 0, "an address is not aligned");
        mine.emplace_back(block, bytes);
      } else if (!mine.empty()) {
        std::swap(mine.back(), mine[numbers.below(static_cast<uint32_t>(mine.size()))]);
        const auto [block, bytes] = mine.back();
        const auto* address = static_cast<const std::byte*>(block->address());
        require(pool.find(address) == block && pool.find(address + bytes - 1) == block,
                "a block is not found");
        mine.pop_back();
        pool.free(block);
      }
      if (i % 50 == 49) pool.empty_cache();
    }
    for (const auto& [block, bytes] : mine) pool.free(block);
  });
  CHECK(failure == "");
  const vulkan::MemoryStatistics after = pool.statistics();
  CHECK(after.allocated_bytes.current == before.allocated_bytes.current);
  CHECK(after.blocks.added - before.blocks.added == after.blocks.removed - before.blocks.removed);
  pool.empty_cache();
  CHECK(pool.statistics().reserved_bytes.current == before.reserved_bytes.current);
  pool.reset_peaks();
  CHECK(pool.statistics().reserved_bytes.peak == pool.statistics().reserved_bytes.current);
  int outside = 0;
  CHECK(pool.find(&outside) == nullptr);
}

}  // namespace q8ta::test
