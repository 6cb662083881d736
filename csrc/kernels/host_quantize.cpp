// Compiled with -ffp-contract=off: a fused multiply-add would round differently from the GPU and the
// reference.
#include "kernels/host_quantize.h"

#include <algorithm>
#include <array>

namespace q8ta::kernels {

// The loop is over plain restricted arrays and scalars of its own, so that compilers vectorize it: an int8
// store may alias anything else.
void host_quantize(const Quantization& quantization, const float* __restrict y, int64_t count,
                   int8_t* __restrict q) {
  // Adding and subtracting 1.5 * 2^23 rounds to nearest even, and unlike nearbyint it is vectorized without
  // SSE4.1. It needs a small magnitude; whatever is beyond +-1024 saturates in the end anyway.
  constexpr float kRounder = 12'582'912.0F;
  const float inverse_scale = quantization.inverse_output_scale;
  const auto zero_point = static_cast<float>(quantization.output_zero_point);
  for (int64_t i = 0; i < count; ++i) {
    const float scaled = std::min(std::max(y[i] * inverse_scale, -1024.0F), 1024.0F);
    const float shifted = (scaled + kRounder) - kRounder + zero_point;
    q[i] = static_cast<int8_t>(static_cast<int32_t>(std::min(std::max(shifted, -128.0F), 127.0F)));
  }
}

std::array<int8_t, 256> requantize_table(const Quantization& quantization) {
  std::array<float, 256> y;
  for (int32_t i = 0; i < 256; ++i) {
    const int32_t x = i - 128;
    y[i] = static_cast<float>(x - quantization.input_zero_point) * quantization.input_scale;
  }
  std::array<int8_t, 256> table;
  host_quantize(quantization, y.data(), 256, table.data());
  return table;
}

}  // namespace q8ta::kernels
