#pragma once

#include <cstdint>

namespace q8ta::vulkan {

/// When a DeviceStream submits what it has recorded. To measure: vary one number, build, and look at the wall
/// time of a chain (32 layers of 512x512, then wait) and at the time to queue its ops; a submission costs the
/// host about as much as recording one op, and the GPU's work after the last submission is waited for in
/// full. On a software device the numbers mean little: its GPU time is the host's.
struct SubmissionPolicy {
  /// A submission of so many commands is not made longer.
  static constexpr uint32_t kMostCommands = 64;

  /// Nor one of so much work (work_of() of its commands): it stays far below the 2 s of common watchdogs on a
  /// slow GPU (0.5 TMAC/s).
  static constexpr uint64_t kMostWork = uint64_t{1} << 35;

  /// A byte that a command reads or writes is as much work as so many multiplies: the slow GPU shares memory
  /// of 8 GB/s with its host. So 2 GiB are the most.
  static constexpr uint64_t kMultipliesPerByte = 16;

  /// A GPU without work gets what there is once it is worth a submission. Only every so many commands is the
  /// GPU asked.
  static constexpr uint32_t kCommandsForIdleGpu = 8;
  static constexpr uint32_t kCommandsBetweenQuestions = 4;
  static constexpr uint64_t kMultipliesForIdleGpu = uint64_t{1} << 26;

  /// A command counts as at least this much work where commands are not counted (graphs): 2 us of a slow
  /// GPU.
  static constexpr uint64_t kLeastWork = uint64_t{1} << 20;
};

}  // namespace q8ta::vulkan
