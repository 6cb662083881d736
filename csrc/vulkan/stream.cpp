#include "vulkan/stream.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <string>

#include "vulkan/device.h"
#include "vulkan/dispatch_record.h"
#include "vulkan/error.h"
#include "vulkan/validation.h"

namespace q8ta::vulkan {
namespace {

// Below this a copy into staging memory is cheaper than importing and releasing the pages (8 us on lavapipe).
constexpr size_t kImportBytes = size_t{256} << 10;

}  // namespace

Stream::Stream(Device& device)
    : device_(device),
      command_pool_(device),
      uploads_(device, MemoryUse::upload),
      downloads_(device, MemoryUse::download),
      scratch_(device, MemoryUse::device_local),
      repeated_batches_(device, command_pool_),
      fence_(device) {}

void Stream::begin() {
  seen_messages_ = device_.validating() ? validation_message_count() : 0;
  uploads_.reset();
  downloads_.reset();
  scratch_.reset();
  hazards_.reset();
  commands_.clear();
  destination_ = nullptr;
  host_reads_ = false;
  profiling_ = Profiler::instance().enabled();
}

std::optional<BufferRange> Stream::import_pages(const void* data, size_t bytes) {
  const DeviceInfo& info = device_.info();
  if (!info.unified_memory || !info.host_import || bytes < kImportBytes) return std::nullopt;
  // Whole pages are imported, so neighbours on the first and the last page come along; nothing touches them.
  const auto first = reinterpret_cast<std::uintptr_t>(data);
  const std::uintptr_t begin = first / info.host_import_alignment * info.host_import_alignment;
  const VkDeviceSize size = round_up(first + bytes - begin, info.host_import_alignment);
  std::optional<Buffer> buffer =
      Buffer::import_host(device_, reinterpret_cast<void*>(begin), size);  // NOLINT: an address, not a value
  if (!buffer) return std::nullopt;
  imports_.push_back(std::move(*buffer));
  return imports_.back().range().subrange(first - begin, bytes);
}

ByteRange Stream::upload(const void* data, size_t bytes, size_t readable_bytes) {
  const bool reads_behind = readable_bytes > bytes;
  if (!reads_behind) {
    if (const std::optional<BufferRange> imported = import_pages(data, bytes)) {
      const VkDeviceSize aligned =
          imported->offset / device_.binding_alignment() * device_.binding_alignment();
      const auto first_byte = static_cast<uint32_t>(imported->offset - aligned);
      return {{imported->buffer, imported->buffer_id, aligned, round_up(first_byte + bytes, 4)}, first_byte};
    }
  }
  return {stage(data, bytes, reads_behind ? readable_bytes : bytes), 0};
}

BufferRange Stream::upload_words(const void* data, size_t bytes) {
  if (const std::optional<BufferRange> imported = import_pages(data, bytes)) {
    if (imported->offset % device_.binding_alignment() == 0) return *imported;
  }
  return stage(data, bytes, bytes);
}

BufferRange Stream::stage(const void* data, size_t bytes, size_t readable_bytes) {
  const Arena::Piece piece = uploads_.allocate(readable_bytes);
  std::memcpy(piece.mapped(), data, bytes);
  piece.flush();
  return piece.range;
}

BufferRange Stream::download(size_t offset, size_t row_bytes, size_t rows, size_t stride) {
  host_reads_ = true;
  const size_t bytes = row_bytes * rows;
  const bool contiguous = rows == 1 || row_bytes == stride;
  if (destination_ != nullptr && contiguous && bytes % sizeof(uint32_t) == 0) {  // shaders write whole words
    if (const std::optional<BufferRange> imported = import_pages(destination_ + offset, bytes)) {
      if (imported->offset % device_.binding_alignment() == 0) return *imported;
    }
  }
  const Arena::Piece piece = downloads_.allocate(bytes);
  pending_downloads_.push_back({piece, offset, row_bytes, rows, stride});
  return piece.range;
}

void Stream::dispatch(const Pipeline& pipeline, std::initializer_list<Binding> bindings,
                      std::span<const std::byte> push_constants, uint32_t workgroups,
                      const DispatchLabel& label) {
  append(dispatch_command(device_, pipeline, bindings, push_constants, workgroups, label.kernel),
         {bindings.begin(), bindings.size()}, label);
}

void Stream::copy(const BufferRange& from, const BufferRange& to, const DispatchLabel& label) {
  append(copy_command(from, to), std::array<Binding, 2>{Binding{from}, Binding{to, true}}, label);
}

void Stream::append(Command command, std::span<const Binding> bindings, const DispatchLabel& label) {
  command.barrier_before = hazards_.needs_barrier(bindings);
  commands_.push_back(command);
  if (profiling_) profiled_.push_back(describe(device_, command, label));
}

VkCommandBuffer Stream::recorded() {
  if (!profiling_ && imports_.empty()) return repeated_batches_.get(commands_, host_reads_);
  if (!single_batch_) single_batch_.emplace(device_, command_pool_);
  if (profiling_ && !timestamps_) timestamps_.emplace(device_);
  single_batch_->record(commands_, host_reads_, profiling_ ? &*timestamps_ : nullptr);
  return single_batch_->handle();
}

void Stream::submit() { fence_.submit(recorded()); }

void Stream::wait() {
  fence_.wait();
  for (const PendingDownload& download : pending_downloads_) {
    download.piece.invalidate();
    const std::byte* source = download.piece.mapped();
    std::byte* destination = destination_ + download.offset;
    if (download.row_bytes == download.stride) {
      std::memcpy(destination, source, download.row_bytes * download.rows);
      continue;
    }
    for (size_t row = 0; row < download.rows; ++row) {
      std::memcpy(destination + row * download.stride, source + row * download.row_bytes, download.row_bytes);
    }
  }
  pending_downloads_.clear();
  imports_.clear();
  collect_timestamps();
  if (device_.validating()) throw_new_validation_messages(seen_messages_);
}

void Stream::collect_timestamps() {
  if (!profiling_) return;
  for (uint32_t i = 0; i < profiled_.size(); ++i) {
    set_times(profiled_[i], *timestamps_, i);
    Profiler::instance().add(profiled_[i]);
  }
  profiled_.clear();
}

bool Stream::recover() noexcept {
  try {
    fence_.wait();
  } catch (const std::exception&) {  // the device is lost, and perhaps there is no memory to say so
  }
  if (device_.lost()) return false;
  pending_downloads_.clear();
  imports_.clear();
  profiled_.clear();
  return true;
}

}  // namespace q8ta::vulkan
