// The same value in every element: up to four words, over and over.
#version 450
#extension GL_GOOGLE_include_directive : require

layout(local_size_x = 64) in;

#include "include/workgroup.glsl"

layout(push_constant) uniform Arguments {
  uint words;   // of the binding
  uint period;  // words after which the value begins again: 1, 2 or 4
  uint value[4];
};
layout(set = 0, binding = 0) writeonly buffer Y { uint y[]; };

void main() {
  uint word = workgroup_index() * gl_WorkGroupSize.x + gl_LocalInvocationID.x;
  if (word < words) y[word] = value[word % period];
}
