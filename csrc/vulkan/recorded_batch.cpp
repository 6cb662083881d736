#include "vulkan/recorded_batch.h"

#include <algorithm>
#include <cstring>
#include <span>

#include "vulkan/device.h"

namespace q8ta::vulkan {
namespace {

constexpr size_t kKeptBatches = 64;

uint64_t hash_of(const std::vector<Command>& commands) {
  uint64_t hash = commands.size();
  const auto mix = [&hash](uint64_t value) {
    hash = (hash ^ value) * 0x9E37'79B9'7F4A'7C15U;
    hash ^= hash >> 32;
  };
  for (const Command& command : commands) {
    mix(reinterpret_cast<std::uintptr_t>(command.pipeline));
    mix(command.workgroups);
    for (uint32_t i = 0; i < command.binding_count; ++i) {
      mix(command.bindings[i].buffer_id);
      mix(command.bindings[i].offset);
    }
    for (uint32_t i = 0; i < command.push_constant_bytes; i += sizeof(uint64_t)) {  // zero behind their end
      uint64_t word = 0;
      std::memcpy(&word, command.push_constants.data() + i, sizeof(word));
      mix(word);
    }
  }
  return hash;
}

/// What these commands do: a barrier waits for nothing else.
Scope scope_of_all(std::span<const Command> commands) {
  Scope scope;
  for (const Command& command : commands) scope |= scope_of(command);
  return scope;
}

}  // namespace

RecordedBatch::RecordedBatch(Device& device, CommandPool& pool)
    : device_(device), pool_(pool), commands_buffer_(pool.allocate()), descriptors_(device) {}

RecordedBatch::~RecordedBatch() { pool_.free(commands_buffer_); }

void RecordedBatch::record_all(std::span<const Command> commands, const Scope& scope,
                               Timestamps* timestamps) {
  BoundState bound;
  for (uint32_t i = 0; i < commands.size(); ++i) {
    if (commands[i].barrier_before) record_barrier(device_, commands_buffer_, scope, scope);
    if (timestamps != nullptr) timestamps->record_begin(commands_buffer_, i);
    record_command(device_, commands_buffer_, descriptors_, bound, commands[i]);
    if (timestamps != nullptr) timestamps->record_end(commands_buffer_, i);
  }
}

void RecordedBatch::record(const std::vector<Command>& commands, bool host_reads, Timestamps* timestamps) {
  descriptors_.reset(static_cast<uint32_t>(commands.size()));
  CommandRecording recording(device_, commands_buffer_);
  if (timestamps != nullptr) timestamps->record_reset(commands_buffer_);
  const Scope scope = scope_of_all(commands);
  record_all(commands, scope, timestamps);
  // Later submissions of this stream reuse its memory by shaders and copies alike.
  if (!commands.empty())
    record_barrier(device_, commands_buffer_, scope, host_reads ? kHostReads : kDeviceWork);
  recording.end();
}

void RecordedBatch::record_repeatable(std::span<const Command> commands, Timestamps* timestamps) {
  descriptors_.reset(static_cast<uint32_t>(commands.size()));
  CommandRecording recording(device_, commands_buffer_, VK_COMMAND_BUFFER_USAGE_SIMULTANEOUS_USE_BIT);
  if (timestamps != nullptr) timestamps->record_reset(commands_buffer_);
  const Scope scope = scope_of_all(commands);
  record_barrier(device_, commands_buffer_, kDeviceWork, scope);
  record_all(commands, scope, timestamps);
  recording.end();
}

VkCommandBuffer BatchCache::get(const std::vector<Command>& commands, bool host_reads) {
  const uint64_t hash = hash_of(commands);
  ++uses_;
  for (Entry& entry : entries_) {
    if (entry.hash == hash && entry.host_reads == host_reads && entry.commands == commands) {
      entry.last_use = uses_;
      return entry.batch->handle();
    }
  }
  std::unique_ptr<RecordedBatch> batch;
  if (entries_.size() < kKeptBatches) {
    batch = std::make_unique<RecordedBatch>(device_, pool_);
  } else {
    const auto oldest =
        std::min_element(entries_.begin(), entries_.end(),
                         [](const Entry& a, const Entry& b) { return a.last_use < b.last_use; });
    batch = std::move(oldest->batch);
    entries_.erase(oldest);
  }
  batch->record(commands, host_reads);
  entries_.push_back({hash, uses_, commands, host_reads, std::move(batch)});
  return entries_.back().batch->handle();
}

}  // namespace q8ta::vulkan
