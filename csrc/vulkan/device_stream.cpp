#include "vulkan/device_stream.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "vulkan/device.h"
#include "vulkan/dispatch_record.h"
#include "vulkan/error.h"
#include "vulkan/fence.h"
#include "vulkan/fork.h"
#include "vulkan/recorded_graph.h"
#include "vulkan/submission_policy.h"
#include "vulkan/validation.h"

namespace q8ta::vulkan {
namespace {

constexpr size_t kStagedBytes = size_t{16} << 20;  // of one upload or download at a time

}  // namespace

DeviceStream::DeviceStream(Device& device) : device_(device), downloads_(device, MemoryUse::download) {}

DeviceStream::~DeviceStream() { destroy(); }

void DeviceStream::destroy() noexcept {
  if (inherited_by_fork() || command_pool_ == VK_NULL_HANDLE) return;
  const VolkDeviceTable& api = device_.api();
  api.vkDeviceWaitIdle(device_.handle());
  for (const std::unique_ptr<Batch>& batch : batches_) {
    if (batch) api.vkDestroyFence(device_.handle(), batch->fence, nullptr);
  }
  batches_ = {};
  graphs_.clear();
  timers_.clear();
  api.vkDestroyCommandPool(device_.handle(), command_pool_, nullptr);
}

void DeviceStream::check_usable() {
  check_not_forked();
  if (device_.validating()) seen_messages_ = validation_message_count();
}

void DeviceStream::check_not_captured(const char* what) const {
  if (const Capture* capture = Capture::of_this_thread(device_)) capture->refuse(what);
}

void DeviceStream::create_batch(std::unique_ptr<Batch>& batch) {
  const VolkDeviceTable& api = device_.api();
  if (command_pool_ == VK_NULL_HANDLE) {
    VkCommandPoolCreateInfo info{VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO};
    info.flags = VK_COMMAND_POOL_CREATE_RESET_COMMAND_BUFFER_BIT;
    info.queueFamilyIndex = device_.info().queue_family;
    check(api.vkCreateCommandPool(device_.handle(), &info, nullptr, &command_pool_), "vkCreateCommandPool");
  }
  auto made = std::make_unique<Batch>(device_);
  VkCommandBufferAllocateInfo info{VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO};
  info.commandPool = command_pool_;
  info.level = VK_COMMAND_BUFFER_LEVEL_PRIMARY;
  info.commandBufferCount = 1;
  check(api.vkAllocateCommandBuffers(device_.handle(), &info, &made->commands), "vkAllocateCommandBuffers");
  const VkFenceCreateInfo fence_info{VK_STRUCTURE_TYPE_FENCE_CREATE_INFO};
  check(api.vkCreateFence(device_.handle(), &fence_info, nullptr, &made->fence), "vkCreateFence");
  batch = std::move(made);
}

/// The next one of the ring, with nothing in it.
DeviceStream::Batch& DeviceStream::next_batch() {
  std::unique_ptr<Batch>& next = batches_[current_];
  if (!next) create_batch(next);
  Batch& batch = *next;
  wait_for(batch);
  batch.uploads.reset();
  batch.scratch.reset();
  batch.descriptors.reset(SubmissionPolicy::kMostCommands);
  batch.bound = {};
  batch.graph.reset();
  batch.ops.clear();
  batch.profiled.clear();  // of a submission that failed
  batch.recorded = 0;
  batch.multiplies = 0;
  batch.submission = ++last_submission_;
  return batch;
}

DeviceStream::Batch* DeviceStream::open_batch_or_null() {
  Batch* batch = batches_[current_].get();
  return batch != nullptr && batch->open ? batch : nullptr;
}

DeviceStream::Batch& DeviceStream::open_batch() {
  if (Batch* open = open_batch_or_null()) return *open;
  Batch& batch = next_batch();
  VkCommandBufferBeginInfo info{VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO};
  info.flags = VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT;
  check(device_.api().vkBeginCommandBuffer(batch.commands, &info), "vkBeginCommandBuffer");
  batch.open = true;
  batch.profiling = Profiler::instance().enabled();
  if (batch.profiling) {
    if (!batch.timestamps) batch.timestamps.emplace(device_);
    batch.timestamps->record_reset(batch.commands);
  }
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

BufferRange DeviceStream::scratch(VkDeviceSize bytes) { return open_batch().scratch.allocate(bytes).range; }

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
  Batch& batch = open_batch();
  if (hazards_.needs_barrier(bindings)) {
    record_barrier(device_, batch.commands, since_barrier_, kDeviceWork);
    since_barrier_ = {};
  }
  since_barrier_ |= scope_of(command);
  if (batch.profiling) {
    batch.timestamps->record_begin(batch.commands, batch.recorded);
    batch.profiled.push_back(describe(device_, command, label));
  }
  record_command(device_, batch.commands, batch.descriptors, batch.bound, command);
  if (batch.profiling) batch.timestamps->record_end(batch.commands, batch.recorded);
  batch.ops.push_back(label.op);
  ++batch.recorded;
  batch.multiplies += label.multiplies();
}

void DeviceStream::submit_if_worthwhile() {
  using Policy = SubmissionPolicy;
  const Batch* batch = open_batch_or_null();
  if (batch == nullptr) return;
  const bool enough =
      batch->recorded >= Policy::kMostCommands || batch->multiplies >= Policy::kMostMultiplies;
  const bool some = (batch->recorded >= Policy::kCommandsForIdleGpu &&
                     batch->recorded % Policy::kCommandsBetweenQuestions == 0) ||
                    batch->multiplies >= Policy::kMultipliesForIdleGpu;
  if (enough || (some && gpu_is_idle())) submit();
}

bool DeviceStream::finished(const Batch& batch) {
  return !batch.in_flight || device_.api().vkGetFenceStatus(device_.handle(), batch.fence) == VK_SUCCESS;
}

bool DeviceStream::gpu_is_idle() {
  const Batch* last = batches_[(current_ + kBatches - 1) % kBatches].get();
  return last == nullptr || finished(*last);
}

void DeviceStream::submit() {
  Batch* batch = open_batch_or_null();
  if (batch == nullptr) return;
  batch->open = false;
  check(device_.api().vkEndCommandBuffer(batch->commands), "vkEndCommandBuffer");
  device_.submit(batch->commands, batch->fence);
  submitted(*batch);
}

void DeviceStream::submitted(Batch& batch) {
  batch.in_flight = true;
  current_ = (current_ + 1) % kBatches;
}

void DeviceStream::wait_for(Batch& batch) {
  if (!batch.in_flight) return;
  const VkResult result = wait_for_fence(device_, batch.fence);
  batch.in_flight = false;
  if (result != VK_SUCCESS) {
    throw Error(device_.info().name + " failed (" + result_name(result) +
                ") in work that holds: " + (batch.graph ? batch.graph->ops() : names_once(batch.ops)));
  }
  check(device_.api().vkResetFences(device_.handle(), 1, &batch.fence), "vkResetFences");
  for (uint32_t i = 0; i < batch.profiled.size(); ++i) {
    set_times(batch.profiled[i], *batch.timestamps, i);
    Profiler::instance().add(batch.profiled[i]);
  }
  batch.profiled.clear();
  batch.graph.reset();
}

void DeviceStream::wait_for_all() {
  for (size_t i = 0; i < kBatches; ++i) {  // the oldest first
    if (Batch* batch = batches_[(current_ + i) % kBatches].get()) wait_for(*batch);
  }
  if (device_.validating()) throw_new_validation_messages(seen_messages_);
}

void DeviceStream::flush() {
  const std::lock_guard lock(mutex_);
  check_usable();
  submit();
}

bool DeviceStream::idle() {
  const std::lock_guard lock(mutex_);
  check_usable();
  return open_batch_or_null() == nullptr && gpu_is_idle();
}

void DeviceStream::synchronize() {
  check_not_captured("waits for the device");
  finish();
}

void DeviceStream::finish() {
  const std::lock_guard lock(mutex_);
  check_usable();
  submit();
  wait_for_all();
}

void DeviceStream::upload(const void* data, size_t bytes, const BufferRange& to) {
  check_not_captured("copies from host memory");
  const std::lock_guard lock(mutex_);
  check_usable();
  for (size_t first = 0; first < bytes; first += kStagedBytes) {
    const size_t count = std::min(kStagedBytes, bytes - first);
    const Arena::Piece piece = open_batch().uploads.allocate(count);
    std::memcpy(piece.mapped(), static_cast<const std::byte*>(data) + first, count);
    piece.flush();
    copy(piece.range.subrange(0, count), to.subrange(first, count), {"upload", "copy"});
    if (count == kStagedBytes) submit();  // the GPU copies this piece while the host brings the next one
  }
  submit_if_worthwhile();
}

void DeviceStream::download(const BufferRange& from, size_t bytes, void* data) {
  check_not_captured("copies to host memory");
  const std::lock_guard lock(mutex_);
  check_usable();
  for (size_t first = 0; first < bytes; first += kStagedBytes) {
    const size_t count = std::min(kStagedBytes, bytes - first);
    downloads_.reset();
    const Arena::Piece piece = downloads_.allocate(count);
    copy(from.subrange(first, count), piece.range.subrange(0, count), {"download", "copy"});
    record_barrier(device_, open_batch().commands, kCopies, kHostReads);
    submit();
    wait_for_all();
    piece.invalidate();
    std::memcpy(static_cast<std::byte*>(data) + first, piece.mapped(), count);
  }
}

void DeviceStream::record_event(Event& event) {
  check_not_captured("records an event");
  const std::lock_guard lock(mutex_);
  check_usable();
  if (event.timed_) {
    if (event.timer_ == nullptr) {
      if (free_timers_.empty()) {
        free_timers_.push_back(timers_.emplace_back(std::make_unique<Timestamps>(device_, 1)).get());
      }
      event.timer_ = free_timers_.back();
      free_timers_.pop_back();
    }
    const Batch& batch = open_batch();
    event.timer_->record_reset(batch.commands);
    event.timer_->record_end(batch.commands, 0);
  }
  const Batch* open = open_batch_or_null();
  event.submission_ = open != nullptr ? open->submission : last_submission_;
}

bool DeviceStream::passed(const Event& event) {
  check_not_captured("asks for an event");
  const std::lock_guard lock(mutex_);
  check_usable();
  const Batch* open = open_batch_or_null();
  if (open != nullptr && open->submission <= event.submission_) submit();
  return std::none_of(batches_.begin(), batches_.end(), [&](const std::unique_ptr<Batch>& batch) {
    return batch && batch->submission == event.submission_ && !finished(*batch);
  });
}

void DeviceStream::wait_for(const Event& event) {
  check_not_captured("waits for an event");
  const std::lock_guard lock(mutex_);
  check_usable();
  const Batch* open = open_batch_or_null();
  if (open != nullptr && open->submission <= event.submission_) submit();
  for (size_t i = 0; i < kBatches; ++i) {
    Batch* batch = batches_[(current_ + i) % kBatches].get();
    if (batch != nullptr && batch->submission <= event.submission_) wait_for(*batch);
  }
  if (device_.validating()) throw_new_validation_messages(seen_messages_);
}

double DeviceStream::milliseconds_between(const Event& begin, const Event& end) {
  const std::lock_guard lock(mutex_);
  check_usable();
  if (begin.timer_ == nullptr || end.timer_ == nullptr || !begin.timer_->measured(0)) {
    throw Error(device_.info().name + " has no timestamps, so it cannot tell the time between events");
  }
  return microseconds_between(device_, begin.timer_->end_ticks(0), end.timer_->end_ticks(0)) * 1e-3;
}

void DeviceStream::forget_event(Event& event) {
  const std::lock_guard lock(mutex_);
  // What is in flight may still write it: whoever gets it next does so after that.
  free_timers_.push_back(event.timer_);
  event.timer_ = nullptr;
}

std::weak_ptr<RecordedGraph> DeviceStream::add_graph(Capture& capture) {
  const std::lock_guard lock(mutex_);
  check_usable();
  if (command_pool_ == VK_NULL_HANDLE) create_batch(batches_[current_]);
  return graphs_.emplace_back(std::make_shared<RecordedGraph>(device_, command_pool_, capture));
}

void DeviceStream::replay(const std::weak_ptr<RecordedGraph>& graph) {
  check_not_captured("replays a graph");
  const std::lock_guard lock(mutex_);
  check_usable();
  const std::shared_ptr<RecordedGraph> replayed = graph.lock();
  if (!replayed) throw Error("the graph was reset");
  const bool measure = Profiler::instance().enabled();
  const std::vector<VkCommandBuffer>& submissions =
      measure ? replayed->measured_submissions() : replayed->submissions();
  if (submissions.empty()) return;
  submit();  // what comes before it
  Batch& batch = next_batch();
  batch.graph = replayed;
  for (const VkCommandBuffer commands : submissions) {
    device_.submit(commands, commands == submissions.back() ? batch.fence : VK_NULL_HANDLE);
  }
  submitted(batch);
  hazards_.touch_everything();
  since_barrier_ = kDeviceWork;
  if (measure) {  // the next replay writes the same timestamps
    wait_for_all();
    replayed->collect();
  }
}

void DeviceStream::remove_graph(const std::weak_ptr<RecordedGraph>& graph) {
  const std::lock_guard lock(mutex_);
  const std::shared_ptr<RecordedGraph> removed = graph.lock();
  if (!removed) return;
  removed->release_memory();  // its command buffers stay for as long as they are in flight
  std::erase(graphs_, removed);
}

}  // namespace q8ta::vulkan
