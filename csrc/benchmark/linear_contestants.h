#pragma once

#include <memory>

#include "benchmark/contestant.h"
#include "kernels/linear_types.h"
#include "vulkan/selection.h"

namespace q8ta::benchmark {

/// Memory of the host.
struct HostBytes {
  const void* data = nullptr;
  size_t bytes = 0;
};

/// What all ways to compute linear start from. `problem` is complete.
struct LinearInputs {
  kernels::LinearProblem problem;
  HostBytes x;        ///< in the order that the contestant wants
  HostBytes weights;  ///< likewise
  kernels::HostChannels channels;
  size_t copies = 1;  ///< of the weights
};

/// Our op as a user of the vk device gets it: x [M, K] and the weights [N, K] row-major, y [M, N] row-major.
std::unique_ptr<Contestant> make_linear(const vulkan::Selection& selection, const LinearInputs& inputs);

/// The kernels of ExecuTorch's pull request 17566 (shaders/benchmark): the GEMV for one row, with x and y in
/// 4W, else the GEMM, with x and y in 4H4W. Weights are words [K/4][N/8][8] of 4 consecutive k, zero behind
/// the matrix.
std::unique_ptr<Contestant> make_pull_request(const vulkan::Selection& selection, const LinearInputs& inputs);

}  // namespace q8ta::benchmark
