#include "vulkan/submission.h"

#include <chrono>

namespace q8ta::vulkan {

Submission::Submission(Device& device, uint32_t most_timed_commands)
    : device_(device),
      pool_(device),
      commands_(pool_.allocate()),
      descriptors_(device),
      timestamps_(device, most_timed_commands),
      fence_(device) {}

void Submission::begin(uint32_t sets) {
  recording_.reset();  // one that failed
  descriptors_.reset(sets);
  recording_.emplace(device_, commands_);
  timestamps_.record_reset(commands_);
}

Elapsed Submission::run(std::optional<uint32_t> measured) {
  recording_->end();
  const auto start = std::chrono::steady_clock::now();
  fence_.submit(commands_);
  fence_.wait();
  const auto end = std::chrono::steady_clock::now();
  Elapsed elapsed;
  elapsed.wall_us = std::chrono::duration<double, std::micro>(end - start).count();
  if (measured && timestamps_.measured(*measured)) elapsed.gpu_us = timestamps_.elapsed_us(*measured);
  return elapsed;
}

}  // namespace q8ta::vulkan
