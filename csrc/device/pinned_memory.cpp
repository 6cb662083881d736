#include "device/pinned_memory.h"

#include <c10/core/impl/alloc_cpu.h>

#include <cstddef>
#include <cstring>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>

namespace q8ta::device {
namespace {

struct Blocks {
  std::mutex mutex;
  std::map<const void*, size_t> bytes;  // of the blocks in use, by address
};

/// Never destroyed: tensors may be freed when the process is exiting.
Blocks& blocks() {
  static Blocks& instance = *std::make_unique<Blocks>().release();
  return instance;
}

void free_block(void* address) {
  if (address == nullptr) return;
  {
    const std::lock_guard lock(blocks().mutex);
    blocks().bytes.erase(address);
  }
  c10::free_cpu(address);
}

class PinnedAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    void* address = c10::alloc_cpu(bytes);
    c10::DataPtr data(address, address, &free_block, c10::Device(c10::DeviceType::CPU));
    if (address != nullptr) {
      const std::lock_guard lock(blocks().mutex);
      blocks().bytes.emplace(address, bytes);
    }
    return data;
  }

  c10::DeleterFnPtr raw_deleter() const override { return &free_block; }

  void copy_data(void* destination, const void* source, std::size_t bytes) const override {
    std::memcpy(destination, source, bytes);
  }
};

}  // namespace

c10::Allocator& pinned_allocator() {
  static PinnedAllocator instance;
  return instance;
}

bool is_pinned(const void* address) {
  const std::lock_guard lock(blocks().mutex);
  const auto behind = blocks().bytes.upper_bound(address);
  if (behind == blocks().bytes.begin()) return false;
  const auto& [begin, bytes] = *std::prev(behind);
  return static_cast<const std::byte*>(address) < static_cast<const std::byte*>(begin) + bytes;
}

}  // namespace q8ta::device
