#include "vulkan/device_stream.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <string>

#include "vulkan/device.h"
#include "vulkan/error.h"
#include "vulkan/fork.h"
#include "vulkan/validation.h"

namespace q8ta::vulkan {
namespace {

// A submission costs the host 2-3 us, as much as a small kernel runs: several share one. But a GPU without
// work gets what there is once it is worth a submission, and a batch stays far below the 2 s of common
// watchdogs.
constexpr uint32_t kMostCommands = 64;
constexpr uint64_t kMostMultiplies = uint64_t{1} << 35;
constexpr uint32_t kCommandsForIdleGpu = 8;
constexpr uint64_t kMultipliesForIdleGpu = uint64_t{1} << 26;

constexpr size_t kStagedBytes = size_t{16} << 20;  // of one upload or download at a time

}  // namespace

DeviceStream::DeviceStream(Device& device) : device_(device), downloads_(device, MemoryUse::download) {
  try {
    create();
  } catch (...) {
    destroy();
    throw;
  }
}

DeviceStream::~DeviceStream() { destroy(); }

void DeviceStream::create() {
  const VolkDeviceTable& api = device_.api();
  VkCommandPoolCreateInfo pool_info{VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO};
  pool_info.flags = VK_COMMAND_POOL_CREATE_RESET_COMMAND_BUFFER_BIT;
  pool_info.queueFamilyIndex = device_.info().queue_family;
  check(api.vkCreateCommandPool(device_.handle(), &pool_info, nullptr, &command_pool_),
        "vkCreateCommandPool");
  for (size_t i = 0; i < kBatches; ++i) {
    Batch& batch = *batches_.emplace_back(std::make_unique<Batch>(device_));
    VkCommandBufferAllocateInfo info{VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO};
    info.commandPool = command_pool_;
    info.level = VK_COMMAND_BUFFER_LEVEL_PRIMARY;
    info.commandBufferCount = 1;
    check(api.vkAllocateCommandBuffers(device_.handle(), &info, &batch.commands), "vkAllocateCommandBuffers");
    const VkFenceCreateInfo fence_info{VK_STRUCTURE_TYPE_FENCE_CREATE_INFO};
    check(api.vkCreateFence(device_.handle(), &fence_info, nullptr, &batch.fence), "vkCreateFence");
  }
}

void DeviceStream::destroy() noexcept {
  if (inherited_by_fork()) return;
  const VolkDeviceTable& api = device_.api();
  api.vkDeviceWaitIdle(device_.handle());
  for (const std::unique_ptr<Batch>& batch : batches_) {
    api.vkDestroyFence(device_.handle(), batch->fence, nullptr);
  }
  batches_.clear();
  api.vkDestroyCommandPool(device_.handle(), command_pool_, nullptr);
}

void DeviceStream::check_usable() {
  check_not_forked();
  if (device_.validating()) seen_messages_ = validation_message_count();
}

DeviceStream::Batch& DeviceStream::open_batch() {
  Batch& batch = *batches_[current_];
  if (batch.open) return batch;
  wait_for(batch);
  batch.uploads.reset();
  batch.scratch.reset();
  batch.descriptors.reset(kMostCommands);
  batch.ops.clear();
  batch.profiled.clear();  // of a submission that failed
  batch.recorded = 0;
  batch.multiplies = 0;
  const VkCommandBufferBeginInfo info{VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO};
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

void DeviceStream::append(Command command, std::span<const Binding> bindings, const DispatchLabel& label) {
  Batch& batch = open_batch();
  if (hazards_.needs_barrier(bindings)) {
    record_barrier(device_, batch.commands, since_barrier_, kDeviceWork);
    since_barrier_ = {};
  }
  since_barrier_ |= scope_of(command);
  if (batch.profiling) {
    batch.timestamps->record_begin(batch.commands, batch.recorded);
    batch.profiled.push_back({label, command.workgroups, std::nullopt});
  }
  record_command(device_, batch.commands, batch.descriptors, command);
  if (batch.profiling) batch.timestamps->record_end(batch.commands, batch.recorded);
  batch.ops.push_back(label.op);
  ++batch.recorded;
  batch.multiplies += uint64_t{label.M} * label.K * std::max<uint32_t>(label.N, 1);
}

void DeviceStream::submit_if_worthwhile() {
  const Batch& batch = *batches_[current_];
  if (!batch.open) return;
  const bool enough = batch.recorded >= kMostCommands || batch.multiplies >= kMostMultiplies;
  const bool some = batch.recorded >= kCommandsForIdleGpu || batch.multiplies >= kMultipliesForIdleGpu;
  if (enough || (some && gpu_is_idle())) submit();
}

bool DeviceStream::gpu_is_idle() {
  const Batch& last = *batches_[(current_ + kBatches - 1) % kBatches];
  return !last.in_flight || device_.api().vkGetFenceStatus(device_.handle(), last.fence) == VK_SUCCESS;
}

void DeviceStream::submit() {
  Batch& batch = *batches_[current_];
  if (!batch.open) return;
  batch.open = false;
  check(device_.api().vkEndCommandBuffer(batch.commands), "vkEndCommandBuffer");
  device_.submit(batch.commands, batch.fence);
  batch.in_flight = true;
  current_ = (current_ + 1) % kBatches;
}

void DeviceStream::wait_for(Batch& batch) {
  if (!batch.in_flight) return;
  const VolkDeviceTable& api = device_.api();
  VkResult result = VK_TIMEOUT;
  while (result == VK_TIMEOUT) {
    result = api.vkWaitForFences(device_.handle(), 1, &batch.fence, VK_TRUE, 1'000'000'000);
  }
  batch.in_flight = false;
  if (result != VK_SUCCESS) {
    std::string ops;
    for (const char* op : batch.ops) {
      if (ops.find(op) == std::string::npos) ops += (ops.empty() ? "" : ", ") + std::string(op);
    }
    throw Error(device_.info().name + " failed (" + result_name(result) + ") in work that holds: " + ops);
  }
  check(api.vkResetFences(device_.handle(), 1, &batch.fence), "vkResetFences");
  for (uint32_t i = 0; i < batch.profiled.size(); ++i) {
    if (batch.timestamps->measured(i)) batch.profiled[i].gpu_us = batch.timestamps->elapsed_us(i);
    Profiler::instance().add(std::move(batch.profiled[i]));
  }
  batch.profiled.clear();
}

void DeviceStream::wait_for_all() {
  for (size_t i = 0; i < kBatches; ++i) wait_for(*batches_[(current_ + i) % kBatches]);  // the oldest first
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
  return !batches_[current_]->open && gpu_is_idle();
}

void DeviceStream::synchronize() {
  const std::lock_guard lock(mutex_);
  check_usable();
  submit();
  wait_for_all();
}

void DeviceStream::upload(const void* data, size_t bytes, const BufferRange& to) {
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

}  // namespace q8ta::vulkan
