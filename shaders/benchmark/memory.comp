// How fast memory is read, or copied: LOADS loads of 16 bytes in flight an invocation.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint LOADS = 4;
layout(constant_id = 2) const bool COPY = false;

#include "include/workgroup.glsl"

layout(push_constant) uniform Arguments {
  uint count;  // of 16-byte vectors
  uint store;  // 0: the sums are computed, but nobody gets them
};
layout(set = 0, binding = 0) readonly buffer X { uvec4 x[]; };
layout(set = 0, binding = 1) writeonly buffer Y { uint y[]; };
layout(set = 0, binding = 1) writeonly buffer YVectors { uvec4 y_vectors[]; };

void main() {
  uint threads = gl_WorkGroupSize.x, thread = gl_LocalInvocationID.x;
  uint first = workgroup_index() * threads * LOADS + thread;
  uvec4 loaded[LOADS];
  [[unroll]] for (uint i = 0; i < LOADS; ++i) {
    uint vector = first + i * threads;
    loaded[i] = vector < count ? x[vector] : uvec4(0);
  }
  uint sum = 0;
  [[unroll]] for (uint i = 0; i < LOADS; ++i) {
    uint vector = first + i * threads;
    if (COPY) {
      if (vector < count) y_vectors[vector] = loaded[i];
    } else {
      sum += loaded[i].x + loaded[i].y + loaded[i].z + loaded[i].w;
    }
  }
  // A condition that the compiler cannot foresee, so that it leaves the loads in.
  if (!COPY && (store != 0 || sum == 0x9e3779b9u)) y[workgroup_index() * threads + thread] = sum;
}
