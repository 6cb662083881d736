// What the pull request's two kernels share: arguments, parameters of the channels, the epilogue. Apart from
// our kernels' own, so that the opponents stay as they are when our kernels change.
#include "include/quantization.glsl"

layout(push_constant) uniform Arguments {
  uint M;
  uint N;
  uint K_words;
  float input_scale;
  int input_zero_point;
  float inverse_output_scale;
  int output_zero_point;
  uint relu;
  uint has_bias;
};

layout(set = 0, binding = 2) readonly buffer WeightSums { int weight_sums[]; };
layout(set = 0, binding = 3) readonly buffer WeightScales { float weight_scales[]; };
layout(set = 0, binding = 4) readonly buffer Bias { float bias[]; };

// Four adjacent outputs as the bytes of a word, 0 behind N.
int finish(ivec4 sums, uint n4) {
  ivec4 bytes = ivec4(0);
  [[unroll]] for (uint i = 0; i < 4; ++i) {
    uint n = 4 * n4 + i;
    if (n >= N) break;
    precise float multiplier = input_scale * weight_scales[n];
    precise float y = float(sums[i] - input_zero_point * weight_sums[n]) * multiplier;
    if (has_bias != 0) y = y + bias[n];
    if (relu != 0) y = max(y, 0.0);
    bytes[i] = quantize_value(y, inverse_output_scale, output_zero_point, -128.0, 127.0);
  }
  return pack4(bytes);
}
