#pragma once

#include <memory>
#include <vector>

#include "vulkan/buffer.h"
#include "vulkan/hazard_tracker.h"
#include "vulkan/recorder.h"

namespace q8ta::benchmark {

struct LabelledCommand {
  vulkan::Command command;
  vulkan::DispatchLabel label;

  /// Whether it only changes the order of x or y in memory.
  bool only_moves() const;
};

/// The commands of one op, the first of which waits for everything before it: as in a chain of layers.
using Op = std::vector<LabelledCommand>;

/// Keeps what kernels record instead of running it. Scratch memory is shared by all ops and lives as long as
/// the list.
class CommandList final : public vulkan::Recorder {
 public:
  explicit CommandList(vulkan::Device& device) : device_(device) {}

  template <typename Work>
  Op record(Work work) {
    begin();
    work(static_cast<vulkan::Recorder&>(*this));
    return std::move(op_);
  }

  vulkan::Device& device() override { return device_; }
  void dispatch(const vulkan::Pipeline& pipeline, std::initializer_list<vulkan::Binding> bindings,
                std::span<const std::byte> push_constants, uint32_t workgroups,
                const vulkan::DispatchLabel& label) override;
  void copy(const vulkan::BufferRange& from, const vulkan::BufferRange& to,
            const vulkan::DispatchLabel& label) override;
  vulkan::BufferRange scratch(VkDeviceSize bytes) override;

 private:
  void begin();
  void append(vulkan::Command command, std::span<const vulkan::Binding> bindings,
              const vulkan::DispatchLabel& label);

  vulkan::Device& device_;
  vulkan::HazardTracker hazards_;
  Op op_;
  std::vector<std::unique_ptr<vulkan::Buffer>> scratch_;
  std::vector<std::unique_ptr<vulkan::Buffer>> outgrown_;
  size_t scratch_used_ = 0;
};

}  // namespace q8ta::benchmark
