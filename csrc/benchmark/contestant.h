#pragma once

#include <string>
#include <utility>
#include <vector>

#include "benchmark/command_list.h"
#include "vulkan/submission.h"

namespace q8ta::benchmark {

/// GPU time of one command.
struct CommandTime {
  std::string kernel;
  uint32_t workgroups = 0;
  std::optional<double> gpu_us;
};

/// One way to compute something, whose time is measured: ops that do the same with different copies of their
/// data, so that no cache holds what the next one reads.
class Contestant {
 public:
  virtual ~Contestant() = default;
  Contestant(const Contestant&) = delete;
  Contestant& operator=(const Contestant&) = delete;

  size_t copies() const { return ops_.size(); }
  size_t result_bytes() const { return result_bytes_; }

  /// Runs the op of one copy on output memory that holds something else before, and fetches result_bytes().
  void fetch_result(size_t copy, void* result);

  /// Mean time of an op among `count` of them, which take turns through the first `copies` copies and wait
  /// for each other. `kernels_only` leaves out what packs x and unpacks y.
  vulkan::Elapsed time(uint32_t count, size_t copies, bool kernels_only);

  /// Time of every command of `count` ops, measured one by one.
  std::vector<CommandTime> time_commands(uint32_t count);

 protected:
  Contestant(vulkan::Device& device, size_t result_bytes);

  vulkan::Device& device() const { return device_; }

  /// Where ops write their result: result_bytes, rounded up to words.
  vulkan::BufferRange output() const { return output_.range(); }

  /// A buffer with these bytes, readable up to `readable_bytes`; it lives as long as the contestant.
  vulkan::BufferRange buffer_of(const void* data, size_t bytes, size_t readable_bytes = 0);
  vulkan::BufferRange empty_buffer(size_t bytes);

  /// Copies `from` on the device, now.
  void copy_now(const vulkan::BufferRange& from, const vulkan::BufferRange& to);

  /// Adds the op that uses the next copy.
  template <typename Work>
  void add_op(Work work) {
    ops_.push_back(list_.record(std::move(work)));
  }

  /// What fetch_result runs instead, where an op that is timed keeps its result to itself.
  template <typename Work>
  void set_checked_op(Work work) {
    checked_op_ = list_.record(std::move(work));
  }

 private:
  void record(const Op& op, bool kernels_only, vulkan::BoundState& bound);

  vulkan::Device& device_;
  size_t result_bytes_;
  vulkan::Buffer output_;
  std::vector<vulkan::Buffer> buffers_;
  CommandList list_;
  std::vector<Op> ops_;
  Op checked_op_;
  vulkan::Submission submission_;
};

}  // namespace q8ta::benchmark
