#include "benchmark/command_list.h"

#include <array>
#include <string_view>

#include "vulkan/device.h"

namespace q8ta::benchmark {

using vulkan::Binding;
using vulkan::BufferRange;
using vulkan::Command;
using vulkan::DispatchLabel;

bool LabelledCommand::only_moves() const {
  const std::string_view kernel = label.kernel;
  return command.pipeline == nullptr || kernel.starts_with("pack/") || kernel.starts_with("unpack/");
}

void CommandList::begin() {
  hazards_.reset();
  op_.clear();
  scratch_used_ = 0;
}

void CommandList::dispatch(const vulkan::Pipeline& pipeline, std::initializer_list<Binding> bindings,
                           std::span<const std::byte> push_constants, uint32_t workgroups,
                           const DispatchLabel& label) {
  append(vulkan::dispatch_command(device_, pipeline, bindings, push_constants, workgroups, label.kernel),
         {bindings.begin(), bindings.size()}, label);
}

void CommandList::copy(const BufferRange& from, const BufferRange& to, const DispatchLabel& label) {
  append(vulkan::copy_command(from, to), std::array<Binding, 2>{Binding{from}, Binding{to, true}}, label);
}

void CommandList::append(Command command, std::span<const Binding> bindings, const DispatchLabel& label) {
  const bool hazard = hazards_.needs_barrier(bindings);
  command.barrier_before = hazard || op_.empty();
  op_.push_back({command, label});
}

BufferRange CommandList::scratch(VkDeviceSize bytes) {
  const VkDeviceSize size = vulkan::round_up(bytes, 4);
  const size_t index = scratch_used_++;
  if (index == scratch_.size()) scratch_.emplace_back();
  std::unique_ptr<vulkan::Buffer>& buffer = scratch_[index];
  if (buffer != nullptr && buffer->size() >= size) return buffer->range().subrange(0, size);
  auto larger = std::make_unique<vulkan::Buffer>(device_, vulkan::MemoryUse::device_local, size);
  if (buffer != nullptr) outgrown_.push_back(std::move(buffer));  // an earlier op uses it
  buffer = std::move(larger);
  return buffer->range();
}

}  // namespace q8ta::benchmark
