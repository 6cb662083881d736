// Compiled with -ffp-contract=off: see host_epilogue.h.
#include "kernels/host_quantize.h"

#include <array>

#include "kernels/host_epilogue.h"

namespace q8ta::kernels {

std::array<int8_t, 256> requantize_table(const Quantization& quantization) {
  std::array<int8_t, 256> table;
  for (int32_t i = 0; i < 256; ++i) {
    const int32_t x = i - 128;
    const float y = static_cast<float>(x - quantization.input_zero_point) * quantization.input_scale;
    store_quantized<ScalarFloats, /*relu=*/false>(&table[i], y, quantization);
  }
  return table;
}

}  // namespace q8ta::kernels
