#include "benchmark/contestant.h"

#include <algorithm>

#include "vulkan/device.h"
#include "vulkan/device_stream.h"
#include "vulkan/error.h"
#include "vulkan/validation.h"

namespace q8ta::benchmark {
namespace {

using vulkan::Buffer;
using vulkan::BufferRange;
using vulkan::MemoryUse;

constexpr uint32_t kPoison = 0xa5c3'5a3cU;
constexpr uint32_t kWhole = 0;  // the timestamp pair around everything

/// Turns what the validation layers say meanwhile into an exception.
class ValidationScope {
 public:
  explicit ValidationScope(const vulkan::Device& device)
      : validating_(device.validating()), seen_(validating_ ? vulkan::validation_message_count() : 0) {}

  void check() const {
    if (validating_) vulkan::throw_new_validation_messages(seen_);
  }

 private:
  bool validating_;
  size_t seen_;
};

}  // namespace

Contestant::Contestant(vulkan::Device& device, size_t result_bytes)
    : device_(device),
      result_bytes_(result_bytes),
      output_(device, MemoryUse::device_local, vulkan::round_up(result_bytes, 4)),
      list_(device),
      submission_(device) {}

BufferRange Contestant::buffer_of(const void* data, size_t bytes, size_t readable_bytes) {
  const BufferRange range = empty_buffer(std::max(bytes, readable_bytes));
  device_.stream().upload(data, bytes, range.subrange(0, bytes));
  device_.stream().synchronize();
  return range;
}

BufferRange Contestant::empty_buffer(size_t bytes) {
  return buffers_.emplace_back(device_, MemoryUse::device_local, vulkan::round_up(bytes, 4)).range();
}

void Contestant::copy_now(const BufferRange& from, const BufferRange& to) {
  device_.stream().record(
      [&](vulkan::Recorder& recorder) { recorder.copy(from, to, {"benchmark", "copy"}); });
  device_.stream().synchronize();
}

void Contestant::record(const Op& op, bool kernels_only, vulkan::BoundState& bound) {
  bool barrier = true;  // also when the first command is left out
  for (const LabelledCommand& each : op) {
    if (kernels_only && each.only_moves()) continue;
    if (barrier || each.command.barrier_before) {
      vulkan::record_barrier(device_, submission_.commands(), vulkan::kDeviceWork, vulkan::kDeviceWork);
    }
    vulkan::record_command(device_, submission_.commands(), submission_.descriptors(), bound, each.command);
    barrier = false;
  }
}

void Contestant::fetch_result(size_t copy, void* result) {
  const ValidationScope validation(device_);
  const Op& op = checked_op_.empty() ? ops_.at(copy) : checked_op_;
  submission_.begin(static_cast<uint32_t>(op.size()));
  VkCommandBuffer commands = submission_.commands();
  vulkan::record_barrier(device_, commands, vulkan::kDeviceWork, vulkan::kDeviceWork);
  const BufferRange range = output();
  device_.api().vkCmdFillBuffer(commands, range.buffer, range.offset, range.size, kPoison);
  vulkan::BoundState bound;
  record(op, /*kernels_only=*/false, bound);
  vulkan::record_barrier(device_, commands, vulkan::kDeviceWork, vulkan::kDeviceWork);
  submission_.run();
  device_.stream().download(range.subrange(0, result_bytes_), result_bytes_, result);
  validation.check();
}

vulkan::Elapsed Contestant::time(uint32_t count, size_t copies, bool kernels_only) {
  if (count == 0 || copies == 0 || copies > ops_.size()) {
    throw vulkan::Error("time: expected a count of at least 1 and 1 to " + std::to_string(ops_.size()) +
                        " copies");
  }
  const ValidationScope validation(device_);
  submission_.begin(static_cast<uint32_t>(count * ops_.front().size()));
  submission_.timestamps().record_begin(submission_.commands(), kWhole);
  vulkan::BoundState bound;
  for (uint32_t i = 0; i < count; ++i) record(ops_[i % copies], kernels_only, bound);
  submission_.timestamps().record_end(submission_.commands(), kWhole);
  vulkan::Elapsed elapsed = submission_.run(kWhole);
  validation.check();
  if (elapsed.gpu_us) *elapsed.gpu_us /= count;
  elapsed.wall_us /= count;
  return elapsed;
}

std::vector<CommandTime> Contestant::time_commands(uint32_t count) {
  const ValidationScope validation(device_);
  submission_.begin(static_cast<uint32_t>(count * ops_.front().size()));
  std::vector<CommandTime> times;
  for (uint32_t i = 0; i < count; ++i) {
    for (const LabelledCommand& each : ops_[i % ops_.size()]) {
      VkCommandBuffer commands = submission_.commands();
      const auto index = static_cast<uint32_t>(times.size());
      vulkan::record_barrier(device_, commands, vulkan::kDeviceWork, vulkan::kDeviceWork);
      submission_.timestamps().record_begin(commands, index);
      vulkan::record_command(device_, commands, submission_.descriptors(), each.command);
      submission_.timestamps().record_end(commands, index);
      times.push_back({each.label.kernel, each.command.workgroups, std::nullopt});
    }
  }
  submission_.run();
  validation.check();
  for (uint32_t i = 0; i < times.size(); ++i) {
    if (submission_.timestamps().measured(i)) times[i].gpu_us = submission_.timestamps().elapsed_us(i);
  }
  return times;
}

}  // namespace q8ta::benchmark
