#include "device/packed_weights.h"

#include <ATen/ops/empty.h>

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "device/allocator.h"
#include "device/tensor_memory.h"
#include "kernels/weight_cache.h"
#include "vulkan/device_stream.h"

namespace q8ta::device {
namespace {

/// Whose weights and which part of them, and what was made. The address of the StorageImpl means this storage
/// as long as the entry's weak pointer keeps it from being used again.
struct Key {
  const c10::StorageImpl* storage;
  int64_t storage_offset, N, K, row_stride, column_stride;
  kernels::PackOrder order;

  auto operator<=>(const Key&) const = default;
};

struct Entry {
  c10::weak_intrusive_ptr<c10::StorageImpl> storage;
  const void* data;  ///< a storage may get other memory
  uint64_t buffer_id;
  int64_t version;
  at::Tensor packed;
};

constexpr int64_t kOutdated = -1;

/// Inference tensors count no edits: as on the CPU, the weight cache has to be cleared after one.
int64_t version_of(const at::Tensor& weights) { return weights.is_inference() ? 0 : weights._version(); }

class PackedWeights {
 public:
  static PackedWeights& instance() {
    // Never destroyed: tensors on the device may not be freed when the process is exiting.
    static PackedWeights& cache = *[] {
      auto made = std::make_unique<PackedWeights>();
      kernels::WeightCache::instance().add_part(
          {[cache = made.get()] { cache->clear(); }, [cache = made.get()] { return cache->bytes(); }});
      return made.release();
    }();
    return cache;
  }

  /// The copy, if it was made from this memory; and whether it still is what the weights are.
  std::optional<std::pair<at::Tensor, bool>> find(const Key& key, const at::Tensor& weights) {
    const std::lock_guard lock(mutex_);
    const auto found = entries_.find(key);
    if (found == entries_.end() || found->second.data != weights.storage().data()) return std::nullopt;
    return std::pair(found->second.packed, found->second.version == version_of(weights));
  }

  void store(const Key& key, Entry entry) {
    drop_dead();
    const std::lock_guard lock(mutex_);
    const auto [place, is_new] = entries_.try_emplace(key, std::move(entry));
    if (!is_new) std::swap(place->second, entry);
  }

  void outdate(const vulkan::BufferIds& written) {
    const std::lock_guard lock(mutex_);
    for (auto& [key, entry] : entries_) {
      if (written.contains(entry.buffer_id)) entry.version = kOutdated;
    }
  }

  bool drop_dead() {
    std::vector<Entry> dead;  // destroyed without the lock: that may call into Python
    const std::lock_guard lock(mutex_);
    for (auto entry = entries_.begin(); entry != entries_.end();) {
      if (entry->second.storage.expired()) {
        dead.push_back(std::move(entry->second));
        entry = entries_.erase(entry);
      } else {
        ++entry;
      }
    }
    return !dead.empty();
  }

  void clear() {
    std::map<Key, Entry> all;
    const std::lock_guard lock(mutex_);
    all.swap(entries_);
  }

  size_t bytes() {
    drop_dead();
    const std::lock_guard lock(mutex_);
    size_t total = 0;
    for (const auto& [key, entry] : entries_) total += entry.packed.nbytes();
    return total;
  }

 private:
  std::mutex mutex_;
  std::map<Key, Entry> entries_;
};

void pack(const at::Tensor& weights, kernels::PackOrder order, const at::Tensor& packed) {
  vulkan::Device& device = vulkan_device_of(weights);
  const auto dense = bindable(weights, device);
  vulkan::BufferRange source = memory_of(*dense);
  source.size = vulkan::round_up(source.size, 4);
  device.stream().record([&](vulkan::Recorder& recorder) {
    kernels::record_pack(recorder, {source, 0}, {1, weights.size(0), weights.size(1)}, order,
                         memory_of(packed), "weights");
  });
}

/// Whether the kernels can read the weights where they are.
bool lies_packed(const at::Tensor& weights, kernels::PackOrder order, const vulkan::Device& device) {
  return order == kernels::PackOrder::padded_rows && weights.is_contiguous() &&
         kernels::padded_row_bytes(weights.size(1)) == weights.size(1) && starts_binding(weights, device);
}

}  // namespace

c10::MaybeOwned<at::Tensor> packed_weights(const at::Tensor& weights, kernels::PackOrder order) {
  using Result = c10::MaybeOwned<at::Tensor>;
  const vulkan::Device& device = vulkan_device_of(weights);
  if (lies_packed(weights, order, device)) return Result::borrowed(weights);
  const c10::Storage& storage = weights.storage();
  const Key key{storage.unsafeGetStorageImpl(),
                weights.storage_offset(),
                weights.size(0),
                weights.size(1),
                weights.stride(0),
                weights.stride(1),
                order};
  const auto new_copy = [&] {
    return at::empty({4 * kernels::packed_words({1, key.N, key.K}, order)}, weights.options());
  };
  // Of memory that is another storage's, too (DLPack), torch does not count all edits.
  const bool counted = owns_block(storage.data_ptr());
  if (!counted || vulkan::Capture::of_this_thread(device) != nullptr) {
    at::Tensor packed = new_copy();
    pack(weights, order, packed);
    return Result::owned(std::move(packed));
  }
  PackedWeights& cache = PackedWeights::instance();
  auto found = cache.find(key, weights);
  if (found && found->second) return Result::owned(std::move(found->first));
  const int64_t version = version_of(weights);
  at::Tensor packed = found ? found->first : new_copy();
  pack(weights, order, packed);
  cache.store(key,
              {storage.getWeakStorageImpl(), storage.data(), memory_of(weights).buffer_id, version, packed});
  return Result::owned(std::move(packed));
}

void repack_written_weights(const vulkan::BufferIds& written) { PackedWeights::instance().outdate(written); }

bool drop_dead_packed_weights() { return PackedWeights::instance().drop_dead(); }

}  // namespace q8ta::device
