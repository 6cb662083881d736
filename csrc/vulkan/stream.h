#pragma once

#include <cstddef>
#include <initializer_list>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "vulkan/arena.h"
#include "vulkan/command_pool.h"
#include "vulkan/fence.h"
#include "vulkan/hazard_tracker.h"
#include "vulkan/profiler.h"
#include "vulkan/recorded_batch.h"
#include "vulkan/recorder.h"

namespace q8ta::vulkan {

/// Records, submits and waits for one batch of work at a time: begin, upload, dispatch or copy, download,
/// submit, wait. Used by one thread at a time (StreamPool hands them out).
class Stream final : public Recorder {
 public:
  explicit Stream(Device& device);
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  Device& device() override { return device_; }

  void begin();

  /// Makes `bytes` of host memory readable by the next dispatches: a copy into staging memory, or the memory
  /// itself where host and device share it and it is large. Shaders may read `readable_bytes` (0: `bytes`);
  /// what lies behind `bytes` is undefined. The host memory must stay unchanged until wait().
  ByteRange upload(const void* data, size_t bytes, size_t readable_bytes = 0);

  /// The same for int32 words, which need to start where a binding may: `bytes` is a multiple of 4.
  BufferRange upload_words(const void* data, size_t bytes);

  /// The host memory that downloads go to. Must be set before wait(); large downloads go there without a copy
  /// if it is set before they are recorded and host and device share the memory.
  void set_destination(void* destination) { destination_ = static_cast<std::byte*>(destination); }

  /// A range for a shader to write; wait() delivers it `offset` bytes into the destination, as `rows` rows
  /// that are `stride` bytes apart.
  BufferRange download(size_t offset, size_t row_bytes, size_t rows, size_t stride);

  /// Until the end of this batch.
  BufferRange scratch(VkDeviceSize bytes) override { return scratch_.allocate(bytes).range; }

  void dispatch(const Pipeline& pipeline, std::initializer_list<Binding> bindings,
                std::span<const std::byte> push_constants, uint32_t workgroups,
                const DispatchLabel& label) override;
  void copy(const BufferRange& from, const BufferRange& to, const DispatchLabel& label) override;

  void submit();

  /// Returns when the GPU is done and downloads are delivered. Throws DeviceLost, and Error for what the
  /// validation layer reported.
  void wait();

  /// Brings the stream back to rest after an error; false if the device is lost.
  bool recover() noexcept;

 private:
  struct PendingDownload {
    Arena::Piece piece;
    size_t offset, row_bytes, rows, stride;
  };

  void append(Command command, std::span<const Binding> bindings, const DispatchLabel& label);
  std::optional<BufferRange> import_pages(const void* data, size_t bytes);
  BufferRange stage(const void* data, size_t bytes, size_t readable_bytes);
  VkCommandBuffer recorded();
  void collect_timestamps();

  Device& device_;
  CommandPool command_pool_;
  std::optional<Timestamps> timestamps_;
  Arena uploads_;
  Arena downloads_;
  Arena scratch_;
  HazardTracker hazards_;
  std::vector<Command> commands_;
  BatchCache repeated_batches_;
  std::optional<RecordedBatch> single_batch_;  // for what cannot come again: imported memory, timestamps
  std::vector<Buffer> imports_;
  std::vector<PendingDownload> pending_downloads_;
  std::vector<DispatchRecord> profiled_;  // of this batch, in order
  std::byte* destination_ = nullptr;
  bool host_reads_ = false;
  bool profiling_ = false;
  size_t seen_messages_ = 0;
  Fence fence_;  // the last: before all else goes, it waits
};

}  // namespace q8ta::vulkan
