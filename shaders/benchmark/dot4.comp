// How fast packed int8 products are added up when all operands are in registers.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require

layout(local_size_x = 256) in;

#include "include/workgroup.glsl"
#include "include/int8_dot.glsl"

const uint CHAINS = 8;  // independent of each other: one's latency hides behind the others
const uint STEPS = 8;   // in a turn of the loop

layout(push_constant) uniform Arguments {
  uint turns;
  uint store;  // 0: the sums are computed, but nobody gets them
};
layout(set = 0, binding = 0) writeonly buffer Y { int y[]; };

void main() {
  uint invocation = workgroup_index() * gl_WorkGroupSize.x + gl_LocalInvocationID.x;
  int factor = int(invocation * 2654435761u + 12345u);
  int sums[CHAINS];
  [[unroll]] for (uint i = 0; i < CHAINS; ++i)
    sums[i] = factor ^ int(i * 16843009u);
  for (uint turn = 0; turn < turns; ++turn) {
    // Each product is a factor of the next one: no compiler can take them out of the loop.
    [[unroll]] for (uint i = 0; i < STEPS * CHAINS; ++i)
      sums[i % CHAINS] += dot4(sums[i % CHAINS], factor);
  }
  int sum = 0;
  [[unroll]] for (uint i = 0; i < CHAINS; ++i)
    sum ^= sums[i];
  if (store != 0 || sum == 0x1e3779b9) y[invocation] = sum;
}
