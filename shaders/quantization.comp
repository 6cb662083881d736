// Quantize, dequantize, requantize, clamp, maximum and minimum: one word of four 8-bit values an invocation.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require

layout(local_size_x = 64) in;
layout(constant_id = 0) const uint OP = 0;
layout(constant_id = 1) const bool SIGNED = true;  // int8, else uint8

const uint OP_QUANTIZE = 0;    // float -> 8 bits
const uint OP_DEQUANTIZE = 1;  // 8 bits -> float
const uint OP_REQUANTIZE = 2;  // 8 bits -> 8 bits
const uint OP_CLAMP = 3;       // 8 bits -> 8 bits
const uint OP_MAXIMUM = 4;     // 8 bits, 8 bits -> 8 bits
const uint OP_MINIMUM = 5;     // 8 bits, 8 bits -> 8 bits

#include "include/quantization.glsl"
#include "include/workgroup.glsl"

layout(push_constant) uniform Arguments {
  uint count;         // of values
  float input_scale;  // of quantize: another factor, beside inverse_output_scale
  int input_zero_point;
  float inverse_output_scale;
  int output_zero_point;
  int low;
  int high;
};
layout(set = 0, binding = 0) readonly buffer Input {
  int x[];  // words of four values, or the bits of floats
};
layout(set = 0, binding = 1) writeonly buffer Output { int y[]; };
// Of maximum and minimum; for the others anything may be bound.
layout(set = 0, binding = 2) readonly buffer Other { int other[]; };

int quantized(float value) {
  return quantize_value(value, inverse_output_scale, output_zero_point, float(low), float(high));
}

void main() {
  uint word = workgroup_index() * gl_WorkGroupSize.x + gl_LocalInvocationID.x;
  if (4 * word >= count) return;
  uint values = min(4u, count - 4 * word);
  if (OP == OP_MAXIMUM || OP == OP_MINIMUM) {
    ivec4 left = unpack4(x[word], SIGNED), right = unpack4(other[word], SIGNED);
    y[word] = pack4(OP == OP_MAXIMUM ? max(left, right) : min(left, right));
    return;
  }
  ivec4 bytes = ivec4(0);
  if (OP != OP_QUANTIZE) bytes = unpack4(x[word], SIGNED);
  [[unroll]] for (uint i = 0; i < 4; ++i) {
    if (i >= values) break;
    if (OP == OP_QUANTIZE) {
      int bits = x[4 * word + i];
      precise float value = intBitsToFloat(bits) * input_scale;
      // NaN becomes 0, as where the CPU converts it. By its bits, as a driver may take isnan() for false.
      bytes[i] = (bits & 0x7fffffff) > 0x7f800000 ? 0 : quantized(value);
    } else if (OP == OP_CLAMP) {
      bytes[i] = clamp(bytes[i], low, high);
    } else {
      float value = dequantize_value(bytes[i], input_scale, input_zero_point);
      if (OP == OP_DEQUANTIZE) {
        y[4 * word + i] = floatBitsToInt(value);
      } else {
        bytes[i] = quantized(value);
      }
    }
  }
  if (OP != OP_DEQUANTIZE) y[word] = pack4(bytes);
}
