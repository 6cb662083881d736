#include "vulkan/recorded_graph.h"

#include <algorithm>
#include <span>
#include <utility>

#include "vulkan/device.h"
#include "vulkan/dispatch_record.h"
#include "vulkan/submission_policy.h"

namespace q8ta::vulkan {
namespace {

/// Where the parts end that one submission each may hold.
std::vector<size_t> ends_of_parts(const std::vector<Command>& commands,
                                  const std::vector<DispatchLabel>& labels) {
  std::vector<size_t> ends;
  uint64_t work = 0;
  for (size_t i = 0; i < commands.size(); ++i) {
    work += std::max(work_of(commands[i], labels[i]), SubmissionPolicy::kLeastWork);
    if (work < SubmissionPolicy::kMostWork && i + 1 < commands.size()) continue;
    ends.push_back(i + 1);
    work = 0;
  }
  return ends;
}

}  // namespace

RecordedGraph::RecordedGraph(Device& device, CommandPool& pool, Capture& capture)
    : device_(device),
      pool_(pool),
      commands_(capture.commands()),
      labels_(capture.labels()),
      ends_(ends_of_parts(commands_, labels_)),
      plain_(record(/*measured=*/false)) {
  std::swap(memory_, capture.memory());
}

RecordedGraph::Recording RecordedGraph::record(bool measured) {
  Recording recording;
  size_t first = 0;
  for (const size_t end : ends_) {
    Part part{std::make_unique<RecordedBatch>(device_, pool_), nullptr};
    if (measured) part.timestamps = std::make_unique<Timestamps>(device_, static_cast<uint32_t>(end - first));
    part.batch->record_repeatable(std::span(commands_).subspan(first, end - first), part.timestamps.get());
    recording.handles.push_back(part.batch->handle());
    recording.parts.push_back(std::move(part));
    first = end;
  }
  return recording;
}

const std::vector<VkCommandBuffer>& RecordedGraph::measured_submissions() {
  if (!measured_) measured_ = record(/*measured=*/true);
  return measured_->handles;
}

void RecordedGraph::collect() {
  size_t first = 0;
  for (size_t part = 0; part < ends_.size(); first = ends_[part++]) {
    for (size_t i = first; i < ends_[part]; ++i) {
      DispatchRecord record = describe(device_, commands_[i], labels_[i]);
      set_times(record, *measured_->parts[part].timestamps, static_cast<uint32_t>(i - first));
      Profiler::instance().add(record);
    }
  }
}

void RecordedGraph::add_ops_to(std::vector<const char*>& ops) const {
  for (const DispatchLabel& label : labels_) ops.push_back(label.op);
}

void RecordedGraph::release_memory() { device_.memory().release(memory_); }

}  // namespace q8ta::vulkan
