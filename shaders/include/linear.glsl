// What the linear kernels share: their arguments, the per-channel parameters and the epilogue.
#include "quantization.glsl"

layout(push_constant) uniform Arguments {
  uint M;
  uint N;
  uint K_blocks;  // chunks of 16 bytes in a row of x or of the weights
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

// The parameters of four adjacent channels, read ahead of the sums that they meet.
struct Channels {
  ivec4 offsets;
  vec4 multipliers;
  vec4 biases;
};

Channels read_channels(uint n) {
  Channels channels;
  [[unroll]] for (uint i = 0; i < 4; ++i) {
    uint channel = min(n + i, N - 1);
    channels.offsets[i] = input_zero_point * weight_sums[channel];
    channels.multipliers[i] = input_scale * weight_scales[channel];
    channels.biases[i] = (flags & FLAG_BIAS) != 0u ? bias[channel] : 0.0;
  }
  return channels;
}

// The same of channels n to n + 3, where n and N are multiples of 4.
layout(set = 0, binding = 2) readonly buffer WeightSums4 { ivec4 weight_sums4[]; };
layout(set = 0, binding = 3) readonly buffer WeightScales4 { vec4 weight_scales4[]; };
layout(set = 0, binding = 4) readonly buffer Bias4 { vec4 bias4[]; };

Channels read_aligned_channels(uint n) {
  return Channels(input_zero_point * weight_sums4[n / 4], input_scale * weight_scales4[n / 4],
                  (flags & FLAG_BIAS) != 0u ? bias4[n / 4] : vec4(0.0));
}

// y = float(acc - input_zero_point * weight_sum) * (input_scale * weight_scale) + bias, relu
// `precise` keeps every step a rounding of its own: a fused multiply-add would differ from the reference.
vec4 dequantize4(ivec4 accumulators, Channels channels) {
  precise vec4 y = vec4(accumulators - channels.offsets) * channels.multipliers;
  if ((flags & FLAG_BIAS) != 0u) y = y + channels.biases;
  // As integers, whose order is that of floats >= 0: max of floats may return -0, and may flush subnormals.
  return (flags & FLAG_RELU) != 0u ? intBitsToFloat(max(floatBitsToInt(y), ivec4(0))) : y;
}

// q = clamp(roundEven(y / output_scale) + output_zero_point, -128, 127), as the bytes of a word. Adding
// 1.5 * 2^23 rounds to an integer, ties to even, and leaves it in the low bits: two conversions less.
// Clamping to integers first is the same as afterwards.
int quantize_whole4(vec4 y) {
  float low = float(-128 - output_zero_point), high = float(127 - output_zero_point);
  precise vec4 scaled = y * inverse_output_scale;
  precise vec4 rounded = clamp(scaled, vec4(low), vec4(high)) + 12582912.0;
  return pack4(floatBitsToInt(rounded) + output_zero_point);
}

// Bytes behind N are zero.
int quantize4(vec4 y, uint n) {
  int word = quantize_whole4(y);
  return n + 4 <= N ? word : word & int((1u << 8 * (N - n)) - 1u);
}
