// What the linear kernels share: their arguments, the per-channel parameters and the epilogue.
#include "quantization.glsl"

layout(push_constant) uniform Arguments {
  uint M;
  uint N;
  uint K_blocks;  // along K: 16-byte chunks (GEMV) or 4-byte words (GEMM)
  float input_scale;
  int input_zero_point;
  float inverse_output_scale;
  int output_zero_point;
  uint flags;
};

const uint FLAG_RELU = 1;
const uint FLAG_BIAS = 2;

// Of each output channel. Without FLAG_BIAS anything may be bound as bias.
layout(set = 0, binding = 2) readonly buffer WeightSums { int weight_sums[]; };
layout(set = 0, binding = 3) readonly buffer WeightScales { float weight_scales[]; };
layout(set = 0, binding = 4) readonly buffer Bias { float bias[]; };

// y = float(acc - input_zero_point * weight_sum) * (input_scale * weight_scale) + bias, relu
// `precise` keeps every step a rounding of its own: a fused multiply-add would differ from the reference.
float dequantize(int accumulator, uint n) {
  int adjusted = accumulator - input_zero_point * weight_sums[n];
  precise float multiplier = input_scale * weight_scales[n];
  precise float y = float(adjusted) * multiplier;
  if ((flags & FLAG_BIAS) != 0u) y = y + bias[n];
  return (flags & FLAG_RELU) != 0u ? max(y, 0.0) : y;
}

// q = clamp(roundEven(y / output_scale) + output_zero_point, -128, 127)
int quantize(float y) { return quantize_value(y, inverse_output_scale, output_zero_point, -128.0, 127.0); }
