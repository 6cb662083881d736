// Compiled with -ffp-contract=off: a fused multiply-add would round differently from the GPU and the
// reference.
#include "kernels/host_epilogue.h"

#include <algorithm>

namespace q8ta::kernels {
namespace {

float dequantize(const LinearProblem& problem, const HostChannels& channels, int32_t accumulator, int64_t n) {
  // Unsigned, so that sums which are not those of the weights wrap as they do on the GPU.
  const uint32_t correction =
      static_cast<uint32_t>(problem.input_zero_point) * static_cast<uint32_t>(channels.weight_sums[n]);
  const auto adjusted = static_cast<int32_t>(static_cast<uint32_t>(accumulator) - correction);
  const float multiplier = problem.input_scale * channels.weight_scales[n];
  const float y =
      static_cast<float>(adjusted) * multiplier + (channels.bias == nullptr ? 0.0F : channels.bias[n]);
  return problem.relu ? std::max(y, 0.0F) : y;
}

int8_t quantize(const LinearProblem& problem, float y) {
  // Adding and subtracting 1.5 * 2^23 rounds to nearest even, and unlike nearbyint it is vectorized without
  // SSE4.1. It needs a small magnitude; whatever is beyond +-1024 saturates in the end anyway.
  constexpr float kRounder = 12'582'912.0F;
  const float scaled = std::clamp(y * problem.inverse_output_scale, -1024.0F, 1024.0F);
  const float rounded = (scaled + kRounder) - kRounder;
  const float shifted = rounded + static_cast<float>(problem.output_zero_point);
  return static_cast<int8_t>(static_cast<int32_t>(std::clamp(shifted, -128.0F, 127.0F)));
}

template <typename Store>
void for_each_row_segment(int64_t N, int64_t begin, int64_t end, Store store) {
  for (int64_t i = begin; i < end;) {
    const int64_t n = i % N;
    const int64_t count = std::min(N - n, end - i);
    store(i, n, count);
    i += count;
  }
}

}  // namespace

void host_epilogue(const LinearProblem& problem, const HostChannels& channels, const int32_t* accumulators,
                   int64_t begin, int64_t end, void* y) {
  for_each_row_segment(problem.N, begin, end, [&](int64_t first, int64_t first_n, int64_t count) {
    if (problem.float_output) {
      float* out = static_cast<float*>(y) + first;
      for (int64_t i = 0; i < count; ++i) {
        out[i] = dequantize(problem, channels, accumulators[first + i], first_n + i);
      }
      return;
    }
    int8_t* out = static_cast<int8_t*>(y) + first;
    for (int64_t i = 0; i < count; ++i) {
      out[i] = quantize(problem, dequantize(problem, channels, accumulators[first + i], first_n + i));
    }
  });
}

}  // namespace q8ta::kernels
