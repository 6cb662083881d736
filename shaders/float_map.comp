// float32 element by element: y = op(a, b), where one of the two may be a number, or y = clamp(a) or -a.
#version 450
#extension GL_GOOGLE_include_directive : require

layout(local_size_x = 64) in;
layout(constant_id = 0) const uint OP = 0;
layout(constant_id = 1) const uint NUMBER = 0;      // which operand is `low`
layout(constant_id = 2) const bool STRIDED = true;  // else all lie alike, without gaps

const uint OP_CLAMP = 0;
const uint OP_ADD = 1;
const uint OP_SUBTRACT = 2;
const uint OP_MULTIPLY = 3;
const uint OP_DIVIDE = 4;
const uint OP_MAXIMUM = 5;
const uint OP_MINIMUM = 6;
const uint OP_NEGATE = 7;

const uint NUMBER_A = 1;
const uint NUMBER_B = 2;

#include "include/division.glsl"
#include "include/workgroup.glsl"

const uint MAX_DIMENSIONS = 6;

layout(push_constant) uniform Arguments {
  uint count;  // of elements
  uint dimensions;
  uint first_y;  // element of the binding
  uint first_a;
  uint first_b;
  uint sizes[MAX_DIMENSIONS];  // the last one is the innermost
  uint y_strides[MAX_DIMENSIONS];
  uint a_strides[MAX_DIMENSIONS];
  uint b_strides[MAX_DIMENSIONS];
  float low;
  float high;
};
// Words, not floats: what is only compared keeps its bits, be it subnormal or not a number.
layout(set = 0, binding = 0) readonly buffer A { uint a[]; };
layout(set = 0, binding = 1) readonly buffer B { uint b[]; };
layout(set = 0, binding = 2) writeonly buffer Y { uint y[]; };

// Where element `index` (counted in the order of the sizes) lies in y, a and b.
uvec3 places(uint index) {
  uvec3 place = uvec3(first_y, first_a, first_b);
  if (!STRIDED) return place + index;
  for (uint d = dimensions; d-- > 0;) {
    place += index % sizes[d] * uvec3(y_strides[d], a_strides[d], b_strides[d]);
    index /= sizes[d];
  }
  return place;
}

bool is_nan(uint bits) { return (bits & ~SIGN) > INFINITY; }

// An integer in whose order floats are, both zeros being 0: drivers may compare subnormal numbers as zeros.
int ordered(uint bits) { return (bits & SIGN) != 0 ? -int(bits & ~SIGN) : int(bits); }

uint larger(uint left, uint right) { return ordered(left) < ordered(right) ? right : left; }

uint smaller(uint left, uint right) { return ordered(left) > ordered(right) ? right : left; }

uint result(uint left, uint right) {
  precise float l = uintBitsToFloat(left);
  precise float r = uintBitsToFloat(right);
  precise float value = 0;
  if (OP == OP_DIVIDE) return divide(left, right);
  if (OP == OP_MAXIMUM || OP == OP_MINIMUM) {
    if (is_nan(left) || is_nan(right)) return NOT_A_NUMBER;
    return OP == OP_MAXIMUM ? larger(left, right) : smaller(left, right);
  }
  if (OP == OP_CLAMP) {
    if (is_nan(left)) return left;
    return smaller(larger(left, floatBitsToUint(low)), floatBitsToUint(high));
  }
  if (OP == OP_NEGATE) return left ^ SIGN;
  if (OP == OP_ADD) value = l + r;
  if (OP == OP_SUBTRACT) value = l - r;
  if (OP == OP_MULTIPLY) value = l * r;
  return floatBitsToUint(value);
}

void main() {
  uint i = workgroup_index() * gl_WorkGroupSize.x + gl_LocalInvocationID.x;
  if (i >= count) return;
  uvec3 place = places(i);
  uint number = floatBitsToUint(low);
  uint left = NUMBER == NUMBER_A ? number : a[place.y];
  uint right = OP == OP_CLAMP || NUMBER == NUMBER_B ? number : b[place.z];
  y[place.x] = result(left, right);
}
