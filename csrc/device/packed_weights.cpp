#include "device/packed_weights.h"

#include <ATen/ops/empty.h>

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "device/allocator.h"
#include "device/devices.h"
#include "device/tensor_memory.h"
#include "kernels/pack.h"
#include "kernels/weight_cache.h"
#include "vulkan/device_stream.h"
#include "vulkan/error.h"

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
      kernels::WeightCache::instance().add_part({[cache = made.get()] { cache->clear(); },
                                                 [cache = made.get()] { return cache->bytes(); },
                                                 &give_back_weights_in_tiles});
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
    return drop_if([](const Key& /*key*/, const Entry& entry) { return entry.storage.expired(); });
  }

  bool drop_tiles() {
    return drop_if([](const Key& key, const Entry& /*entry*/) { return is_in_tiles(key); });
  }

  bool tiles_are_allowed() const { return tiles_are_allowed_; }
  void allow_tiles(bool allowed) { tiles_are_allowed_ = allowed; }

  void clear() {
    allow_tiles(true);
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
  static bool is_in_tiles(const Key& key) { return key.order == kernels::PackOrder::tiles; }

  /// Tells whether there were such entries.
  template <typename Condition>
  bool drop_if(Condition condition) {
    std::vector<Entry> dropped;  // destroyed without the lock: that may call into Python
    const std::lock_guard lock(mutex_);
    for (auto entry = entries_.begin(); entry != entries_.end();) {
      if (condition(entry->first, entry->second)) {
        dropped.push_back(std::move(entry->second));
        entry = entries_.erase(entry);
      } else {
        ++entry;
      }
    }
    return !dropped.empty();
  }

  std::mutex mutex_;
  std::map<Key, Entry> entries_;
  std::atomic<bool> tiles_are_allowed_{true};
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
bool lies_in_rows(const at::Tensor& weights, const vulkan::Device& device) {
  return weights.is_contiguous() && kernels::padded_row_bytes(weights.size(1)) == weights.size(1) &&
         starts_binding(weights, device);
}

Key key_of(const at::Tensor& weights, kernels::PackOrder order) {
  return {weights.storage().unsafeGetStorageImpl(),
          weights.storage_offset(),
          weights.size(0),
          weights.size(1),
          weights.stride(0),
          weights.stride(1),
          order};
}

int64_t packed_bytes(const Key& key) { return 4 * kernels::packed_words({1, key.N, key.K}, key.order); }

/// Whether a packed copy can be kept. Of memory that is another storage's, too (DLPack), torch does not count
/// all edits.
bool can_be_kept(const at::Tensor& weights) {
  return owns_block(weights.storage().data_ptr()) &&
         vulkan::Capture::of_this_thread(vulkan_device_of(weights)) == nullptr;
}

void pack_and_keep(const at::Tensor& weights, const Key& key, const at::Tensor& packed) {
  const int64_t version = version_of(weights);
  pack(weights, key.order, packed);
  const c10::Storage& storage = weights.storage();
  PackedWeights::instance().store(
      key, {storage.getWeakStorageImpl(), storage.data(), memory_of(weights).buffer_id, version, packed});
}

}  // namespace

c10::MaybeOwned<at::Tensor> weights_in_rows(const at::Tensor& weights) {
  using Result = c10::MaybeOwned<at::Tensor>;
  if (lies_in_rows(weights, vulkan_device_of(weights))) return Result::borrowed(weights);
  const Key key = key_of(weights, kernels::PackOrder::padded_rows);
  const auto new_copy = [&] { return at::empty({packed_bytes(key)}, weights.options()); };
  if (!can_be_kept(weights)) {
    at::Tensor packed = new_copy();
    pack(weights, key.order, packed);
    return Result::owned(std::move(packed));
  }
  auto found = PackedWeights::instance().find(key, weights);
  if (found && found->second) return Result::owned(std::move(found->first));
  at::Tensor packed = found ? found->first : new_copy();
  pack_and_keep(weights, key, packed);
  return Result::owned(std::move(packed));
}

std::optional<at::Tensor> weights_in_tiles(const at::Tensor& weights) {
  if (!can_be_kept(weights)) return std::nullopt;
  const Key key = key_of(weights, kernels::PackOrder::tiles);
  PackedWeights& cache = PackedWeights::instance();
  auto found = cache.find(key, weights);
  if (found && found->second) return std::move(found->first);
  if (!found && !cache.tiles_are_allowed()) return std::nullopt;
  try {
    at::Tensor packed = found ? found->first : empty_if_there_is_memory(packed_bytes(key), weights.device());
    pack_and_keep(weights, key, packed);
    return packed;
  } catch (const vulkan::OutOfMemory&) {
  } catch (const c10::OutOfMemoryError&) {  // of a dense copy on the way
  }
  cache.allow_tiles(false);
  return std::nullopt;
}

void repack_written_weights(const vulkan::BufferIds& written) { PackedWeights::instance().outdate(written); }

bool drop_dead_packed_weights() { return PackedWeights::instance().drop_dead(); }

bool drop_weights_in_tiles() { return PackedWeights::instance().drop_tiles(); }

bool give_back_weights_in_tiles() {
  if (!drop_weights_in_tiles()) return false;
  allow_weights_in_tiles(false);
  for (c10::DeviceIndex i = 0; i < device_count(); ++i) device_at(i).memory().empty_cache();
  return true;
}

void allow_weights_in_tiles(bool allowed) { PackedWeights::instance().allow_tiles(allowed); }

}  // namespace q8ta::device
