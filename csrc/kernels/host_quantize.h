#pragma once

#include <array>
#include <cstdint>

#include "kernels/linear_types.h"

namespace q8ta::kernels {

/// What each int8 value x (at index x + 128) becomes: dequantized by the input's, quantized by the output's
/// parameters.
std::array<int8_t, 256> requantize_table(const Quantization& quantization);

}  // namespace q8ta::kernels
