#pragma once

#include <memory>

#include "benchmark/contestant.h"
#include "benchmark/linear_contestants.h"
#include "vulkan/selection.h"

namespace q8ta::benchmark {

/// What no kernel can beat on a device, each measured as a contestant.

/// A dispatch that does nothing. Result: 32 words that count from 0.
std::unique_ptr<Contestant> make_empty_dispatch(vulkan::Device& device);

/// How memory is read: a workgroup of `threads` invocations, each with `loads` loads of 16 bytes in flight.
struct MemoryAccess {
  uint32_t threads = 256;
  uint32_t loads = 4;
};

/// Reads `window_bytes` of a buffer of `total_bytes`, which `words` fill again and again; the copies are the
/// windows that follow each other. Result of the first window: for each invocation, the sum of its words.
/// All sizes are multiples of 16, `window_bytes` divides into binding offsets.
std::unique_ptr<Contestant> make_read(vulkan::Device& device, const HostBytes& words, size_t total_bytes,
                                      size_t window_bytes, const MemoryAccess& access);

/// Copies `bytes`, which `words` fill again and again, by vkCmdCopyBuffer or, with an access, by a shader.
std::unique_ptr<Contestant> make_copy(vulkan::Device& device, const HostBytes& words, size_t bytes,
                                      const MemoryAccess* access);

/// Adds up packed int8 products whose operands are in registers: 64 in each turn of each of
/// `workgroups` * 256 invocations. Result, after one turn: a word for each invocation.
std::unique_ptr<Contestant> make_dot4(const vulkan::Selection& selection, uint32_t workgroups,
                                      uint32_t turns);

/// Multiplies int8 cooperative matrices of one of the device's shapes, with all fragments in registers: 16
/// products in each turn of each of `workgroups` * 4 subgroups. Result, after one turn: for each subgroup the
/// sum of the 16 products, row-major. Throws Error where the device or the build has none.
std::unique_ptr<Contestant> make_cooperative_matrix(const vulkan::Selection& selection,
                                                    const vulkan::CooperativeMatrixShape& shape,
                                                    uint32_t workgroups, uint32_t turns);

}  // namespace q8ta::benchmark
