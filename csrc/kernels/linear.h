#pragma once

#include <cstdint>
#include <functional>

#include "kernels/kernel_family.h"
#include "kernels/linear_dispatch.h"
#include "kernels/linear_types.h"
#include "kernels/weights.h"
#include "vulkan/device.h"
#include "vulkan/recorder.h"

namespace q8ta::kernels {

/// Columns of y that one dispatch computes, a multiple of kSlabRows: their weights fit into one binding in
/// any order that kernels read.
int64_t slab_columns(const vulkan::Device& device, int64_t K);

/// x [M, K], row-major, as record_linear wants it: rows of padded_row_bytes(K), which it is already if K is a
/// multiple of
/// 16. For one row the range must begin with x and be readable up to padded_row_bytes(K).
vulkan::BufferRange record_prepare_x(vulkan::Recorder& recorder, const LinearProblem& problem,
                                     const vulkan::ByteRange& x);

/// Records y = linear(x) for weights of at most slab_columns() rows, in the order that the kernel reads. y is
/// row-major and written in whole words.
void record_linear(vulkan::Recorder& recorder, const LinearKernel& kernel, const LinearProblem& problem,
                   const LinearBuffers& buffers);

/// The same for weights in rows, by the kernel that LinearChoices has for them.
void record_linear(vulkan::Recorder& recorder, const KernelFamily& family, const LinearProblem& problem,
                   const LinearBuffers& buffers);

/// Linear between host memories: x [M, K] int8 and y [M, N] (int8, or float32 if problem.float_output) are
/// row-major. Splits the work so that bindings, staging memory and the time of one submission stay bounded,
/// and overlaps copies with the GPU. `output` is called once and returns y, when the GPU has started wherever
/// that is possible: what the caller does in it costs no time. Returns when y is written. problem.M is
/// ignored.
void run_linear(vulkan::Device& device, const KernelFamily& family, LinearProblem problem, int64_t M,
                const int8_t* x, const DeviceWeights& weights, const DeviceChannels& channels,
                const std::function<void*()>& output);

}  // namespace q8ta::kernels
