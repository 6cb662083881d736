#include "vulkan/device_batch.h"

#include <array>
#include <utility>

#include "vulkan/device.h"
#include "vulkan/dispatch_record.h"
#include "vulkan/error.h"
#include "vulkan/make_room.h"
#include "vulkan/recorded_graph.h"
#include "vulkan/submission_policy.h"

namespace q8ta::vulkan {

DeviceBatch::DeviceBatch(Device& device, CommandPool& pool)
    : device_(device),
      commands_buffer_(pool.allocate()),
      descriptors_(device),
      uploads_(device, MemoryUse::upload),
      scratch_(device, MemoryUse::device_local),
      fence_(device) {}

DeviceBatch::~DeviceBatch() = default;

void DeviceBatch::reset() {
  try {
    wait();
  } catch (...) {
    profiled_.clear();  // what cannot be read now is not in the way of the next op
    throw;
  }
  begun_ = false;
  recording_.reset();
  steps_.clear();
  ops_.clear();
  profiled_.clear();  // of a submission that failed
  graph_.reset();
  commands_ = 0;
  multiplies_ = 0;
  work_ = 0;
  uploads_.reset();
  scratch_.reset();
}

void DeviceBatch::open() {
  if (recording_) return;
  descriptors_.reset(SubmissionPolicy::kMostCommands);
  bound_ = {};
  recorded_ = 0;
  if (steps_.empty()) profiling_ = Profiler::instance().enabled();
  auto recording = std::make_unique<CommandRecording>(device_, commands_buffer_,
                                                      VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT);
  if (profiling_) {
    if (!timestamps_) timestamps_.emplace(device_);
    timestamps_->record_reset(commands_buffer_);
  }
  for (const Step& step : steps_) record(step);
  recording_ = std::move(recording);
  begun_ = true;
}

void DeviceBatch::record(const Step& step) {
  std::visit([this](const auto& each) { record(each); }, step);
}

void DeviceBatch::record(const Barrier& barrier) {
  record_barrier(device_, commands_buffer_, barrier.earlier, barrier.later);
}

void DeviceBatch::record(const Command& command) {
  if (command.pipeline != nullptr) {
    descriptors_.make_room(command.pipeline->set_layout(), command.binding_count);
  }
  // From here on nothing throws.
  if (profiling_) timestamps_->record_begin(commands_buffer_, recorded_);
  record_command(device_, commands_buffer_, descriptors_, bound_, command);
  if (profiling_) timestamps_->record_end(commands_buffer_, recorded_);
  ++recorded_;
}

void DeviceBatch::record(Timestamps* event) {
  event->record_reset(commands_buffer_);
  event->record_end(commands_buffer_, 0);
}

template <typename What>
void DeviceBatch::add(const What& what) {
  make_room(steps_);
  record(what);
  steps_.emplace_back(what);
}

void DeviceBatch::add_barrier(const Scope& earlier, const Scope& later) { add(Barrier{earlier, later}); }

void DeviceBatch::add_command(const Command& command, const DispatchLabel& label) {
  make_room(ops_);
  if (profiling_) make_room(profiled_);
  add(command);
  ops_.push_back(label.op);
  if (profiling_) profiled_.push_back(describe(device_, command, label));
  ++commands_;
  multiplies_ += label.multiplies();
  work_ += work_of(command, label);
}

void DeviceBatch::add_event(Timestamps& event) { add(&event); }

/// Submits its command buffer, which is among `commands`.
void DeviceBatch::submit_recorded(std::span<const VkCommandBuffer> commands, uint64_t submission) {
  open();
  const std::unique_ptr<CommandRecording> recording = std::move(recording_);
  recording->end();
  fence_.submit(commands);
  begun_ = false;
  steps_.clear();
  submission_ = submission;
}

void DeviceBatch::submit(uint64_t submission) {
  submit_recorded(std::span(&commands_buffer_, 1), submission);
}

void DeviceBatch::submit_with(std::shared_ptr<RecordedGraph> graph, VkCommandBuffer graph_commands,
                              uint64_t submission) {
  graph_ = std::move(graph);
  try {
    submit_recorded(std::array{commands_buffer_, graph_commands}, submission);
  } catch (...) {
    forget_graph();
    throw;
  }
}

void DeviceBatch::submit(std::shared_ptr<RecordedGraph> graph, const std::vector<VkCommandBuffer>& parts,
                         uint64_t submission) {
  graph_ = std::move(graph);
  try {
    for (const VkCommandBuffer part : parts) {
      if (part == parts.back()) {
        fence_.submit(part);
      } else {
        device_.submit(std::span(&part, 1), VK_NULL_HANDLE);
      }
    }
  } catch (...) {
    device_.wait_idle();  // no fence tells the end of the parts that were submitted
    forget_graph();
    throw;
  }
  submission_ = submission;
}

/// After a failure: it has not run. Of a lost device, someone asks for its ops.
void DeviceBatch::forget_graph() {
  if (!device_.lost()) graph_.reset();
}

void DeviceBatch::add_ops_to(std::vector<const char*>& ops) const {
  ops.insert(ops.end(), ops_.begin(), ops_.end());
  if (graph_) graph_->add_ops_to(ops);
}

void DeviceBatch::wait() {
  // Nothing was submitted, or all of that is done; an earlier wait may have failed to read the timestamps.
  if (begun_ || (!fence_.pending() && profiled_.empty())) return;
  try {
    if (fence_.pending()) fence_.wait();
    collect_profile();
  } catch (const DeviceLost&) {
    profiled_.clear();
    std::vector<const char*> ops;
    add_ops_to(ops);
    device_.set_lost_ops(names_once(ops));
    device_.check_not_lost();
    throw;
  }
  graph_.reset();
}

/// All or nothing: whoever tries again after an error gets all of it.
void DeviceBatch::collect_profile() {
  for (uint32_t i = 0; i < profiled_.size(); ++i) set_times(profiled_[i], *timestamps_, i);
  for (DispatchRecord& finished : std::exchange(profiled_, {})) Profiler::instance().add(std::move(finished));
}

}  // namespace q8ta::vulkan
