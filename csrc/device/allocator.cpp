#include "device/allocator.h"

#include <ATen/core/Tensor.h>
#include <c10/core/impl/alloc_cpu.h>

#include <utility>

#include "device/devices.h"
#include "device/packed_weights.h"
#include "vulkan/context.h"
#include "vulkan/error.h"
#include "vulkan/fork.h"
#include "vulkan/memory_info.h"

namespace q8ta::device {
namespace {

/// Which pool a block belongs to is asked of the block: the deleter gets nothing else.
void free_block(void* context) {
  if (context == nullptr || vulkan::inherited_by_fork() || vulkan::Context::is_closed()) return;
  auto* block = static_cast<vulkan::DeviceBlock*>(context);
  block->pool().free(block);
}

c10::DataPtr allocate_block(vulkan::Device& device, size_t bytes, c10::Device index) {
  vulkan::DeviceBlock* block = device.memory().allocate(bytes);
  return {block->address(), block, &free_block, index};
}

class Allocator final : public c10::DeviceAllocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    const c10::Device device(c10::DeviceType::PrivateUse1, current_device());
    vulkan::Device& vulkan_device = device_at(device.index());
    if (bytes == 0) return {nullptr, nullptr, &free_block, device};
    for (bool without_tiles = false;;) {
      try {
        c10::DataPtr data = allocate_block(vulkan_device, bytes, device);
        if (without_tiles) allow_weights_in_tiles(false);  // the memory is wanted for other things
        return data;
      } catch (const vulkan::OutOfMemory& error) {
        if (drop_dead_packed_weights()) continue;
        const bool dropped = !without_tiles && drop_weights_in_tiles();
        TORCH_CHECK_WITH(OutOfMemoryError, dropped, std::string("vk: out of memory: ") + error.what());
        without_tiles = true;
      }
    }
  }

  c10::DeleterFnPtr raw_deleter() const override { return nullptr; }

  void copy_data(void* /*destination*/, const void* /*source*/, std::size_t /*count*/) const override {
    TORCH_CHECK(false, "vk: memory cannot be copied by address");
  }

  bool initialized() override { return device_count() > 0; }

  void emptyCache(c10::MempoolId_t /*pool*/) override {
    drop_dead_packed_weights();
    allow_weights_in_tiles(true);
    for (c10::DeviceIndex i = 0; i < device_count(); ++i) device_at(i).memory().empty_cache();
  }

  // There is one stream, and memory is reused in its order.
  void recordStream(const c10::DataPtr& /*data*/, c10::Stream /*stream*/) override {}

  c10::CachingDeviceAllocator::DeviceStats getDeviceStats(c10::DeviceIndex index) override {
    const vulkan::MemoryStatistics now = device_at(index).memory().statistics();
    c10::CachingDeviceAllocator::DeviceStats stats;
    const auto set = [](c10::CachingAllocator::StatArray& stat, const vulkan::MemoryStatistic& from) {
      c10::CachingAllocator::Stat& to = stat[static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE)];
      to.current = static_cast<int64_t>(from.current);
      to.peak = static_cast<int64_t>(from.peak);
      to.allocated = static_cast<int64_t>(from.added);
      to.freed = static_cast<int64_t>(from.removed);
    };
    set(stats.allocation, now.blocks);
    set(stats.active, now.blocks);
    set(stats.segment, now.segments);
    set(stats.allocated_bytes, now.allocated_bytes);
    set(stats.active_bytes, now.allocated_bytes);
    set(stats.requested_bytes, now.requested_bytes);
    set(stats.reserved_bytes, now.reserved_bytes);
    stats.num_alloc_retries = static_cast<int64_t>(now.retries);
    stats.num_ooms = static_cast<int64_t>(now.out_of_memory);
    return stats;
  }

  std::pair<size_t, size_t> getMemoryInfo(c10::DeviceIndex index) override {
    const vulkan::MemoryInfo info = vulkan::memory_info(device_at(index));
    return {info.free_bytes, info.total_bytes};
  }

  void resetAccumulatedStats(c10::DeviceIndex index) override {
    device_at(index).memory().reset_accumulated();
  }
  void resetPeakStats(c10::DeviceIndex index) override { device_at(index).memory().reset_peaks(); }
};

/// Where an address in a block is, from its beginning.
struct Place {
  vulkan::DeviceBlock* block;
  VkDeviceSize offset;
};

Place place_of(const void* address) {
  for (c10::DeviceIndex i = 0; i < device_count(); ++i) {
    vulkan::DeviceBlock* block = device_at(i).memory().find(address);
    if (block == nullptr) continue;
    return {block, static_cast<VkDeviceSize>(static_cast<const std::byte*>(address) -
                                             static_cast<const std::byte*>(block->address()))};
  }
  TORCH_CHECK(false, "vk: this memory is not a vk tensor's");
}

}  // namespace

c10::DeviceAllocator& allocator() {
  static Allocator instance;
  return instance;
}

at::Tensor empty_if_there_is_memory(int64_t bytes, c10::Device device) {
  const auto size = static_cast<size_t>(bytes);
  c10::DataPtr data = allocate_block(device_at(device.index()), size, device);
  c10::Storage storage(c10::Storage::use_byte_size_t(), size, std::move(data), &allocator(),
                       /*resizable=*/true);
  at::Tensor tensor = at::detail::make_tensor<c10::TensorImpl>(
      std::move(storage), c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
      caffe2::TypeMeta::Make<int8_t>());
  tensor.unsafeGetTensorImpl()->set_sizes_contiguous({bytes});
  return tensor;
}

bool owns_block(const c10::DataPtr& data) {
  return data.get_deleter() == &free_block && data.get_context() != nullptr;
}

vulkan::BufferRange memory_of(const c10::DataPtr& data) {
  if (owns_block(data)) return static_cast<const vulkan::DeviceBlock*>(data.get_context())->buffer().range();
  // DLPack and torch's pickling, for two, make tensors from addresses alone.
  const auto [block, offset] = place_of(data.get());
  return block->buffer().range().subrange(offset, block->buffer().size() - offset);
}

bool is_host_visible(const void* address) { return place_of(address).block->buffer().mapped() != nullptr; }

c10::DataPtr shared_with_host(const void* address) {
  const auto [block, offset] = place_of(address);
  block->pool().share(block);
  return {block->buffer().mapped() + offset, block, &free_block, c10::Device(c10::DeviceType::CPU)};
}

void register_allocator() { c10::SetAllocator(c10::DeviceType::PrivateUse1, &allocator()); }

}  // namespace q8ta::device
