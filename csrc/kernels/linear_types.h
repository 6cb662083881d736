#pragma once

#include <cstdint>

#include "kernels/layout.h"
#include "vulkan/buffer.h"

namespace q8ta::kernels {

/// What the integers mean that an operator takes and gives.
struct Quantization {
  float input_scale = 1.0F;
  int32_t input_zero_point = 0;
  float inverse_output_scale = 1.0F;  ///< float32(1.0 / output_scale), divided in double
  int32_t output_zero_point = 0;
};

/// Sizes and quantization of one call of linear: y[M, N] = x[M, K] times weights[N, K] transposed.
struct LinearProblem {
  const char* op = "linear";  ///< for the profile
  uint32_t M = 0;
  uint32_t K = 0;
  uint32_t N = 0;
  Quantization quantization;
  bool has_bias = false;
  bool relu = false;
  bool float_output = false;                        ///< linear_dequant: y after the activation, not quantized
  PackOrder weight_order = PackOrder::padded_rows;  ///< or tiles, for kernels that can read them
};

/// Parameters of the output channels in host memory; `bias` may be null.
struct HostChannels {
  const int32_t* weight_sums;
  const float* weight_scales;
  const float* bias;
};

/// Parameters of the output channels on a device, N words each.
struct ChannelBuffers {
  vulkan::BufferRange weight_sums;
  vulkan::BufferRange weight_scales;
  vulkan::BufferRange bias;  ///< any range if problem.has_bias is false
};

/// The storage buffers of a linear kernel.
struct LinearBuffers {
  vulkan::BufferRange x;
  vulkan::BufferRange weights;
  ChannelBuffers channels;
  vulkan::BufferRange y;
};

}  // namespace q8ta::kernels
