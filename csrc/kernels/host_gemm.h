#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "kernels/host_packed_weights.h"
#include "kernels/linear_types.h"

namespace q8ta::kernels {

/// Weights [N, K] in host memory: packed, or else in rows `row_stride` bytes apart.
struct HostWeights {
  const HostPackedWeights* packed = nullptr;
  const int8_t* rows = nullptr;
  int64_t row_stride = 0;
};

/// Threads to work with, whosever they are.
struct HostThreads {
  int64_t count = 1;
  /// Calls `work` for parts of 0 .. items - 1 of at least `grain`, and returns when all is done. Not called
  /// if there is one thread.
  std::function<void(int64_t items, int64_t grain,
                     const std::function<void(int64_t begin, int64_t end)>& work)>
      parallel_for;
};

/// y[M, N] = linear(x[M, K]): exact sums, then the epilogue of shaders/include/linear.glsl. x and y are
/// contiguous; y is int8 or, if problem.float_output, float32. problem.M is not read. False if a weight scale
/// is not finite and > 0: y then means nothing.
bool host_linear(const LinearProblem& problem, int64_t M, const HostChannels& channels, const int8_t* x,
                 const HostWeights& weights, void* y, const HostThreads& threads);

/// Whether this processor's kernel reads packed weights; the portable one does not.
bool host_packs_weights();

/// The instruction sets that this processor has a kernel for, the best first: "amx", "avx512_vnni",
/// "avx_vnni", "avx2", "neon_dot", "portable". One that computes a small product wrong is left out.
std::vector<std::string> host_variants();

/// Which one computes: the best, unless force_host_variant chose another.
std::string host_variant();

/// Forces one of host_variants(), for tests; an empty name is the best again. Throws std::invalid_argument.
void force_host_variant(const std::string& name);

}  // namespace q8ta::kernels
