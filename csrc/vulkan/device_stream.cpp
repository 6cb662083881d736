#include "vulkan/device_stream.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "vulkan/device.h"
#include "vulkan/error.h"
#include "vulkan/fork.h"
#include "vulkan/recorded_graph.h"
#include "vulkan/submission_policy.h"
#include "vulkan/validation.h"

namespace q8ta::vulkan {
namespace {

constexpr size_t kStagedBytes = size_t{16} << 20;  // of one upload or download at a time

}  // namespace

DeviceStream::DeviceStream(Device& device) : device_(device), downloads_(device, MemoryUse::download) {}

DeviceStream::~DeviceStream() = default;

void DeviceStream::check_usable() {
  check_not_forked();
  device_.check_not_lost();
  if (device_.validating()) seen_messages_ = validation_message_count();
}

/// Throws DeviceLost, unless the device is there.
void DeviceStream::throw_with_ops() const {
  std::vector<const char*> ops;
  for (size_t i = 0; i < kBatches; ++i) {  // the oldest first
    const DeviceBatch* batch = batches_[(current_ + 1 + i) % kBatches].get();
    if (batch != nullptr && batch->holds_work()) batch->add_ops_to(ops);
  }
  device_.set_lost_ops(names_once(ops));
  device_.check_not_lost();
}

void DeviceStream::check_not_captured(const char* what) const {
  if (const Capture* capture = Capture::of_this_thread(device_)) capture->refuse(what);
}

CommandPool& DeviceStream::command_pool() {
  if (!command_pool_) command_pool_.emplace(device_);
  return *command_pool_;
}

/// The next one of the ring, with nothing in it.
DeviceBatch& DeviceStream::next_batch() {
  std::unique_ptr<DeviceBatch>& next = batches_[current_];
  if (!next) next = std::make_unique<DeviceBatch>(device_, command_pool());
  next->reset();
  return *next;
}

/// The one with what is not submitted, if anything is.
DeviceBatch* DeviceStream::pending_batch() {
  DeviceBatch* batch = batches_[current_].get();
  return batch != nullptr && batch->pending() ? batch : nullptr;
}

DeviceBatch& DeviceStream::open_batch() {
  DeviceBatch* current = batches_[current_].get();
  DeviceBatch& batch = current != nullptr && current->begun() ? *current : next_batch();
  batch.open();
  return batch;
}

void DeviceStream::dispatch(const Pipeline& pipeline, std::initializer_list<Binding> bindings,
                            std::span<const std::byte> push_constants, uint32_t workgroups,
                            const DispatchLabel& label) {
  append(dispatch_command(device_, pipeline, bindings, push_constants, workgroups, label.kernel),
         {bindings.begin(), bindings.size()}, label);
}

void DeviceStream::copy(const BufferRange& from, const BufferRange& to, const DispatchLabel& label) {
  append(copy_command(from, to), std::array<Binding, 2>{Binding{from}, Binding{to, true}}, label);
}

BufferRange DeviceStream::scratch(VkDeviceSize bytes) { return open_batch().scratch().allocate(bytes).range; }

void DeviceStream::append(const Command& command, std::span<const Binding> bindings,
                          const DispatchLabel& label) {
  if (Capture::any()) {
    for (const Binding& binding : bindings) {
      if (!device_.memory().in_capture(binding.range.buffer_id)) continue;
      throw Error(
          std::string(label.op) +
          " works on memory of a graph that another thread is capturing: all work of a graph has to be "
          "in the thread that captures it");
    }
  }
  DeviceBatch& batch = open_batch();
  // Nothing was recorded since the last barrier if the command behind it failed.
  if (hazards_.needs_barrier(bindings) && since_barrier_.stages != 0) {
    batch.add_barrier(since_barrier_, kDeviceWork);
    since_barrier_ = {};
  }
  batch.add_command(command, label);
  unseen_by_host_ = true;
  since_barrier_ |= scope_of(command);
  ++commands_ever_;
}

/// Makes room for the next op, where an earlier submission has failed.
void DeviceStream::submit_if_overdue() {
  using Policy = SubmissionPolicy;
  const DeviceBatch* batch = pending_batch();
  if (batch == nullptr) return;
  if (batch->commands() >= Policy::kMostCommands || batch->work() >= Policy::kMostWork) submit();
}

void DeviceStream::submit_if_worthwhile() {
  using Policy = SubmissionPolicy;
  const DeviceBatch* batch = pending_batch();
  if (batch == nullptr) return;
  const uint32_t commands = batch->commands();
  const bool enough = commands >= Policy::kMostCommands || batch->work() >= Policy::kMostWork;
  const bool some =
      (commands >= Policy::kCommandsForIdleGpu && commands % Policy::kCommandsBetweenQuestions == 0) ||
      batch->multiplies() >= Policy::kMultipliesForIdleGpu;
  try {
    if (enough || (some && gpu_is_idle())) submit();
  } catch (const OutOfMemory&) {  // the op is recorded and so has not failed: submit_if_overdue tries again
  }
}

bool DeviceStream::gpu_is_idle() {
  DeviceBatch* last = batches_[(current_ + kBatches - 1) % kBatches].get();
  return last == nullptr || last->finished();
}

void DeviceStream::submit() {
  DeviceBatch* batch = batches_[current_].get();
  if (batch == nullptr || !batch->begun()) return;
  if (!batch->pending()) {  // the op that it was opened for has failed
    batch->reset();
    return;
  }
  batch->submit(last_submission_ + 1);
  ++last_submission_;
  current_ = (current_ + 1) % kBatches;
}

void DeviceStream::wait_for_all() {
  for (size_t i = 0; i < kBatches; ++i) {  // the oldest first
    if (DeviceBatch* batch = batches_[(current_ + i) % kBatches].get()) batch->wait();
  }
  if (device_.validating()) throw_new_validation_messages(seen_messages_);
}

void DeviceStream::flush() {
  exclusively([&] { submit(); });
}

bool DeviceStream::idle() {
  return exclusively([&] { return pending_batch() == nullptr && gpu_is_idle(); });
}

void DeviceStream::synchronize() {
  if (device_.info().host_visible_memory) return synchronize_with_host();
  check_not_captured("waits for the device");
  finish();
}

void DeviceStream::finish() {
  exclusively([&] { finish_recorded(); });
}

void DeviceStream::finish_recorded() {
  submit();
  wait_for_all();
}

/// Whether there was any. Waits for the GPU, so nobody may have the stream locked.
bool DeviceStream::free_cached_memory() {
  const uint64_t before = device_.memory().statistics().reserved_bytes.current;
  device_.memory().empty_cache();
  return device_.memory().statistics().reserved_bytes.current < before;
}

/// Does the work, and once more if memory runs out.
template <typename Work>
void DeviceStream::again_without_cached_memory(Work work) {
  try {
    return work();
  } catch (const OutOfMemory&) {
    if (!free_cached_memory()) throw;
  }
  work();
}

void DeviceStream::upload(const void* data, size_t bytes, const BufferRange& to) {
  check_not_captured("copies from host memory");
  again_without_cached_memory([&] { upload_once(data, bytes, to); });
}

void DeviceStream::upload_once(const void* data, size_t bytes, const BufferRange& to) {
  exclusively([&] {
    for (size_t first = 0; first < bytes; first += kStagedBytes) {
      const size_t count = std::min(kStagedBytes, bytes - first);
      const Arena::Piece piece = open_batch().uploads().allocate(count);
      std::memcpy(piece.mapped(), static_cast<const std::byte*>(data) + first, count);
      piece.flush();
      copy(piece.range.subrange(0, count), to.subrange(first, count), {"upload", "copy"});
      if (count == kStagedBytes) submit();  // the GPU copies this piece while the host brings the next one
    }
    submit_if_worthwhile();
  });
}

void DeviceStream::download(const BufferRange& from, size_t bytes, void* data) {
  check_not_captured("copies to host memory");
  again_without_cached_memory([&] { download_once(from, bytes, data); });
}

void DeviceStream::download_once(const BufferRange& from, size_t bytes, void* data) {
  exclusively([&] {
    for (size_t first = 0; first < bytes; first += kStagedBytes) {
      const size_t count = std::min(kStagedBytes, bytes - first);
      if (download_pending_) finish_recorded();  // one that failed may still write there
      downloads_.reset();
      const Arena::Piece piece = downloads_.allocate(count);
      copy(from.subrange(first, count), piece.range.subrange(0, count), {"download", "copy"});
      download_pending_ = true;
      open_batch().add_barrier(kCopies, kHostReads);
      finish_recorded();
      download_pending_ = false;
      piece.invalidate();
      std::memcpy(static_cast<std::byte*>(data) + first, piece.mapped(), count);
    }
  });
}

void DeviceStream::synchronize_with_host() {
  check_not_captured("waits for the device");
  again_without_cached_memory([&] {
    exclusively([&] {
      // Also behind work that is submitted: a fence alone makes nothing visible to the host.
      if (unseen_by_host_) open_batch().add_barrier(kDeviceWork, kHostAccess);
      finish_recorded();
      unseen_by_host_ = false;
    });
  });
}

void DeviceStream::record_event(Event& event) {
  check_not_captured("records an event");
  exclusively([&] {
    if (event.timed_) {
      if (event.timer_ == nullptr) {
        if (free_timers_.empty()) {
          free_timers_.reserve(timers_.size() + 1);  // so that all can come back, whatever happens
          free_timers_.push_back(timers_.emplace_back(std::make_unique<Timestamps>(device_, 1)).get());
        }
        event.timer_ = free_timers_.back();
        free_timers_.pop_back();
      }
      open_batch().add_event(*event.timer_);
    }
    event.submission_ = event_submission_ = last_submission_ + (pending_batch() != nullptr ? 1 : 0);
  });
}

bool DeviceStream::passed(const Event& event) {
  check_not_captured("asks for an event");
  return exclusively([&] {
    if (event.submission_ > last_submission_) submit();
    return std::none_of(batches_.begin(), batches_.end(), [&](const std::unique_ptr<DeviceBatch>& batch) {
      return batch && batch->submission() == event.submission_ && !batch->finished();
    });
  });
}

void DeviceStream::wait_for(const Event& event) {
  check_not_captured("waits for an event");
  exclusively([&] {
    if (event.submission_ > last_submission_) submit();
    for (size_t i = 0; i < kBatches; ++i) {
      DeviceBatch* batch = batches_[(current_ + i) % kBatches].get();
      if (batch != nullptr && batch->submission() <= event.submission_) batch->wait();
    }
    if (device_.validating()) throw_new_validation_messages(seen_messages_);
  });
}

double DeviceStream::milliseconds_between(const Event& begin, const Event& end) {
  return exclusively([&] {
    const auto measured = [](const Event& event) {
      return event.timer_ != nullptr && event.timer_->measured(0);
    };
    if (!measured(begin) || !measured(end)) {
      throw Error(device_.info().name + " has no timestamps, so it cannot tell the time between events");
    }
    return microseconds_between(device_, begin.timer_->end_ticks(0), end.timer_->end_ticks(0)) * 1e-3;
  });
}

void DeviceStream::forget_event(Event& event) {
  const std::lock_guard lock(mutex_);
  // What is in flight may still write it: whoever gets it next does so after that.
  free_timers_.push_back(event.timer_);
  event.timer_ = nullptr;
}

std::weak_ptr<RecordedGraph> DeviceStream::add_graph(Capture& capture) {
  return exclusively([&] {
    return graphs_.emplace_back(std::make_shared<RecordedGraph>(device_, command_pool(), capture));
  });
}

void DeviceStream::replay(const std::weak_ptr<RecordedGraph>& graph) {
  check_not_captured("replays a graph");
  exclusively([&] {
    const std::shared_ptr<RecordedGraph> replayed = graph.lock();
    if (!replayed) throw Error("the graph was reset");
    const bool measure = Profiler::instance().enabled();
    const std::vector<VkCommandBuffer>& submissions =
        measure ? replayed->measured_submissions() : replayed->submissions();
    if (submissions.empty()) return;
    // What comes before it goes along where it is little, a copy of inputs for instance, and no event waits
    // for just that.
    DeviceBatch* before = pending_batch();
    const bool together = before != nullptr && submissions.size() == 1 &&
                          before->multiplies() < SubmissionPolicy::kMultipliesForIdleGpu &&
                          event_submission_ <= last_submission_;
    if (!together) submit();
    hazards_.touch_everything();
    unseen_by_host_ = true;
    since_barrier_ = kDeviceWork;
    if (together) {
      before->submit_with(replayed, submissions.front(), last_submission_ + 1);
    } else {
      next_batch().submit(replayed, submissions, last_submission_ + 1);
    }
    ++last_submission_;
    current_ = (current_ + 1) % kBatches;
    if (measure) {  // the next replay writes the same timestamps
      wait_for_all();
      replayed->collect();
    }
  });
}

void DeviceStream::remove_graph(const std::weak_ptr<RecordedGraph>& graph) {
  const std::lock_guard lock(mutex_);
  const std::shared_ptr<RecordedGraph> removed = graph.lock();
  if (!removed) return;
  removed->release_memory();  // its command buffers stay for as long as they are in flight
  std::erase(graphs_, removed);
}

}  // namespace q8ta::vulkan
