// Nothing: what a dispatch and the barrier before it cost.
#version 450

layout(local_size_x = 32) in;

layout(push_constant) uniform Arguments { uint store; };
layout(set = 0, binding = 0) writeonly buffer Y { uint y[]; };

void main() {
  if (store != 0) y[gl_LocalInvocationID.x] = gl_LocalInvocationID.x;
}
