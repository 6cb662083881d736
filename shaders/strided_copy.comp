// Copies elements of 1, 2, 4, 8 or 16 bytes between any strides, as words. To a dense destination each
// invocation writes one whole word; otherwise it writes one element, and shares words with others through
// atomics.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require

layout(local_size_x = 64) in;
layout(constant_id = 0) const uint ELEMENT_BYTES = 4;
layout(constant_id = 1) const bool DENSE = true;

#include "include/workgroup.glsl"

const uint MAX_DIMENSIONS = 6;

layout(push_constant) uniform Arguments {
  uint count;  // of elements
  uint dimensions;
  uint first_source;  // element of the binding
  uint first_destination;
  uint sizes[MAX_DIMENSIONS];  // the last one is the innermost
  uint source_strides[MAX_DIMENSIONS];
  uint destination_strides[MAX_DIMENSIONS];
};
layout(set = 0, binding = 0) readonly buffer Source { uint source[]; };
layout(set = 0, binding = 1) buffer Destination { uint destination[]; };

const uint ELEMENTS_IN_WORD = ELEMENT_BYTES < 4 ? 4 / ELEMENT_BYTES : 1;
const uint WORDS = ELEMENT_BYTES < 4 ? 1 : ELEMENT_BYTES / 4;  // of an element
const uint ELEMENT_BITS = ELEMENT_BYTES < 4 ? 8 * ELEMENT_BYTES : 32;
const uint MASK = ELEMENT_BYTES < 4 ? (1u << (ELEMENT_BITS % 32)) - 1 : 0xffffffffu;

// Where element `index` (counted in the order of the sizes) lies in the source (x) and the destination (y).
uvec2 places(uint index) {
  uvec2 place = uvec2(first_source, first_destination);
  for (uint d = dimensions; d-- > 0;) {
    uint position = index % sizes[d];
    index /= sizes[d];
    place += position * uvec2(source_strides[d], destination_strides[d]);
  }
  return place;
}

uint load(uint element) {
  return source[element / ELEMENTS_IN_WORD] >> (element % ELEMENTS_IN_WORD * ELEMENT_BITS % 32) & MASK;
}

void main() {
  uint invocation = workgroup_index() * gl_WorkGroupSize.x + gl_LocalInvocationID.x;
  if (DENSE && ELEMENT_BYTES < 4) {
    uint first = invocation * ELEMENTS_IN_WORD;
    if (first >= count) return;
    uint word = 0;
    for (uint i = 0; i < min(ELEMENTS_IN_WORD, count - first); ++i)
      word |= load(places(first + i).x) << (i * ELEMENT_BITS);
    destination[first_destination / ELEMENTS_IN_WORD + invocation] = word;
    return;
  }
  if (invocation >= count) return;
  uvec2 place = places(invocation);
  uint target = DENSE ? first_destination + invocation : place.y;
  if (ELEMENT_BYTES >= 4) {
    [[unroll]] for (uint i = 0; i < WORDS; ++i)
      destination[WORDS * target + i] = source[WORDS * place.x + i];
  } else {
    uint shift = target % ELEMENTS_IN_WORD * ELEMENT_BITS;
    atomicAnd(destination[target / ELEMENTS_IN_WORD], ~(MASK << shift));
    atomicOr(destination[target / ELEMENTS_IN_WORD], load(place.x) << shift);
  }
}
