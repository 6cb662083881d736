// What the maxima share: which elements belong to a result, and their order. Before it: FLOATS, or the
// elements are int8.

const uint MAX_DIMENSIONS = 6;

layout(push_constant) uniform Arguments {
  uint count;    // of results
  uint parts;    // results for one output
  uint reduced;  // elements for one output
  uint first_x;  // element of the binding
  uint dimensions;
  uint sizes[MAX_DIMENSIONS];  // those that are kept, then those that are reduced; the last one is the
                               // innermost
  uint x_strides[MAX_DIMENSIONS];
};
layout(set = 0, binding = 0) readonly buffer X { int x[]; };

const uint RESULTS_IN_WORD = FLOATS ? 1 : 4;
const int LEAST = int(0x80000000);
const int GREATEST = 0x7fffffff;  // also the bits of a NaN
const int INFINITY = 0x7f800000;

// An integer in whose order floats are: a NaN is the greatest, and no subnormal is taken for 0.
int ordered(int bits) {
  if ((bits & GREATEST) > INFINITY) return GREATEST;
  return bits < 0 ? bits ^ GREATEST : bits;
}

uint place_of(uint index) {
  uint place = first_x;
  for (uint d = dimensions; d-- > 0;) {
    place += index % sizes[d] * x_strides[d];
    index /= sizes[d];
  }
  return place;
}

// The bits of a float, or an int8.
int element(uint place) { return FLOATS ? x[place] : bitfieldExtract(x[place / 4], int(place % 4 * 8), 8); }
