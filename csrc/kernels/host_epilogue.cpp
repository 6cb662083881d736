// Compiled with -ffp-contract=off: a fused multiply-add would round differently from the GPU and the
// reference.
#include "kernels/host_epilogue.h"

#include <algorithm>

#include "kernels/host_quantize.h"

namespace q8ta::kernels {
namespace {

// Loops are over plain restricted arrays and scalars of their own, so that compilers vectorize them: an int8
// store may alias anything else.

/// y of `count` adjacent output channels of one row.
void dequantize(const LinearProblem& problem, const int32_t* __restrict accumulators,
                const int32_t* __restrict weight_sums, const float* __restrict weight_scales,
                const float* __restrict bias, int64_t count, float* __restrict y) {
  // Unsigned, so that sums which are not those of the weights wrap as they do on the GPU.
  const auto input_zero_point = static_cast<uint32_t>(problem.quantization.input_zero_point);
  const float input_scale = problem.quantization.input_scale;
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
    if (!problem.float_output)
      host_quantize(problem.quantization, values, count, static_cast<int8_t*>(y) + i);
    i += count;
  }
}

}  // namespace q8ta::kernels
