// float32 element by element: clamp, or the sum or product with a second tensor that repeats every `period`
// elements.
#version 450
#extension GL_GOOGLE_include_directive : require

layout(local_size_x = 64) in;
layout(constant_id = 0) const uint OP = 0;

const uint OP_CLAMP = 0;
const uint OP_ADD = 1;
const uint OP_MULTIPLY = 2;

#include "include/workgroup.glsl"

layout(push_constant) uniform Arguments {
  uint count;
  uint period;
  float low;
  float high;
};
layout(set = 0, binding = 0) readonly buffer A { float a[]; };
layout(set = 0, binding = 1) readonly buffer B { float b[]; };
layout(set = 0, binding = 2) writeonly buffer Y { float y[]; };

void main() {
  uint i = workgroup_index() * gl_WorkGroupSize.x + gl_LocalInvocationID.x;
  if (i >= count) return;
  precise float value = a[i];
  if (OP == OP_ADD) {
    value = value + b[i % period];
  } else if (OP == OP_MULTIPLY) {
    value = value * b[i % period];
  } else {
    // Comparisons, not max and min: a NaN stays one.
    if (value < low) value = low;
    if (value > high) value = high;
  }
  y[i] = value;
}
