// Compiled with -ffp-contract=off: a fused multiply-add would round differently from the GPU and the
// reference.
#include "kernels/host_epilogue.h"

#include <algorithm>

namespace q8ta::kernels {
namespace {

// Loops are over plain restricted arrays and scalars of their own, so that compilers vectorize them: an int8
// store may alias anything else.

/// y of `count` adjacent output channels of one row.
void dequantize(const LinearProblem& problem, const int32_t* __restrict accumulators,
                const int32_t* __restrict weight_sums, const float* __restrict weight_scales,
                const float* __restrict bias, int64_t count, float* __restrict y) {
  // Unsigned, so that sums which are not those of the weights wrap as they do on the GPU.
  const auto input_zero_point = static_cast<uint32_t>(problem.input_zero_point);
  const float input_scale = problem.input_scale;
  for (int64_t i = 0; i < count; ++i) {
    const auto adjusted = static_cast<int32_t>(static_cast<uint32_t>(accumulators[i]) -
                                               input_zero_point * static_cast<uint32_t>(weight_sums[i]));
    y[i] = static_cast<float>(adjusted) * (input_scale * weight_scales[i]);
  }
  if (bias != nullptr) {
    for (int64_t i = 0; i < count; ++i) y[i] += bias[i];
  }
  if (problem.relu) {
    for (int64_t i = 0; i < count; ++i) y[i] = std::max(y[i], 0.0F);
  }
}

void quantize(const LinearProblem& problem, const float* __restrict y, int64_t count, int8_t* __restrict q) {
  // Adding and subtracting 1.5 * 2^23 rounds to nearest even, and unlike nearbyint it is vectorized without
  // SSE4.1. It needs a small magnitude; whatever is beyond +-1024 saturates in the end anyway.
  constexpr float kRounder = 12'582'912.0F;
  const float inverse_scale = problem.inverse_output_scale;
  const auto zero_point = static_cast<float>(problem.output_zero_point);
  for (int64_t i = 0; i < count; ++i) {
    const float scaled = std::min(std::max(y[i] * inverse_scale, -1024.0F), 1024.0F);
    const float shifted = (scaled + kRounder) - kRounder + zero_point;
    q[i] = static_cast<int8_t>(static_cast<int32_t>(std::min(std::max(shifted, -128.0F), 127.0F)));
  }
}

}  // namespace

void host_epilogue(const LinearProblem& problem, const HostChannels& channels, const int32_t* accumulators,
                   int64_t begin, int64_t end, void* y) {
  constexpr int64_t kBlock = 1024;  // floats between the two steps stay in the L1 cache
  float block[kBlock];
  const int64_t N = problem.N;
  for (int64_t i = begin; i < end;) {
    const int64_t n = i % N;
    const int64_t count = std::min({N - n, end - i, kBlock});
    float* values = problem.float_output ? static_cast<float*>(y) + i : block;
    dequantize(problem, accumulators + i, channels.weight_sums + n, channels.weight_scales + n,
               channels.bias == nullptr ? nullptr : channels.bias + n, count, values);
    if (!problem.float_output) quantize(problem, values, count, static_cast<int8_t*>(y) + i);
    i += count;
  }
}

}  // namespace q8ta::kernels
