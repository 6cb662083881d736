// How fast cooperative matrices multiply int8 when all fragments are in registers.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_EXT_shader_explicit_arithmetic_types_int8 : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_shader_subgroup_basic : require

layout(local_size_x_id = 0) in;  // whole subgroups
layout(constant_id = 1) const uint ROWS = 16;
layout(constant_id = 2) const uint COLUMNS = 16;
layout(constant_id = 3) const uint DEPTH = 32;

#include "include/workgroup.glsl"

// Products of one turn: each pair of fragments, whose sums are independent of each other.
const uint FRAGMENTS = 4;

layout(push_constant) uniform Arguments {
  uint turns;
  uint store;  // 0: the sums are computed, but nobody gets them
};
layout(set = 0, binding = 0) writeonly buffer Y { int y[]; };

// The fragments come from shared memory, though each has one value alone: built from that value, the products
// ran at 0.72 (16x16) and 0.80 (16x8) of this rate on an H200.
const uint ROW_CHUNKS = DEPTH / 16;
const uint A_CHUNKS = FRAGMENTS * ROWS * ROW_CHUNKS, B_CHUNKS = FRAGMENTS * COLUMNS * ROW_CHUNKS;
shared ivec4 chunks[A_CHUNKS + B_CHUNKS];

void main() {
  coopmat<int8_t, gl_ScopeSubgroup, ROWS, DEPTH, gl_MatrixUseA> a[FRAGMENTS];
  coopmat<int8_t, gl_ScopeSubgroup, DEPTH, COLUMNS, gl_MatrixUseB> b[FRAGMENTS];
  coopmat<int, gl_ScopeSubgroup, ROWS, COLUMNS, gl_MatrixUseAccumulator> sums[FRAGMENTS * FRAGMENTS];
  for (uint i = gl_LocalInvocationID.x; i < A_CHUNKS + B_CHUNKS; i += gl_WorkGroupSize.x) {
    uint value = i < A_CHUNKS ? turns % 97 + 3 * (i / (A_CHUNKS / FRAGMENTS)) + 1
                              : turns % 89 + 5 * ((i - A_CHUNKS) / (B_CHUNKS / FRAGMENTS)) + 1;
    chunks[i] = ivec4(value * 0x01010101);
  }
  barrier();
  [[unroll]] for (uint i = 0; i < FRAGMENTS; ++i) {
    coopMatLoad(a[i], chunks, i * (A_CHUNKS / FRAGMENTS), ROW_CHUNKS, gl_CooperativeMatrixLayoutRowMajor);
    coopMatLoad(b[i], chunks, A_CHUNKS + i * (B_CHUNKS / FRAGMENTS), ROW_CHUNKS,
                gl_CooperativeMatrixLayoutColumnMajor);
  }
  [[unroll]] for (uint i = 0; i < FRAGMENTS * FRAGMENTS; ++i)
    sums[i] = coopmat<int, gl_ScopeSubgroup, ROWS, COLUMNS, gl_MatrixUseAccumulator>(0);
  for (uint turn = 0; turn < turns; ++turn) {
    [[unroll]] for (uint i = 0; i < FRAGMENTS; ++i) {
      [[unroll]] for (uint j = 0; j < FRAGMENTS; ++j)
        sums[i * FRAGMENTS + j] = coopMatMulAdd(a[i], b[j], sums[i * FRAGMENTS + j]);
    }
  }
  coopmat<int, gl_ScopeSubgroup, ROWS, COLUMNS, gl_MatrixUseAccumulator> sum = sums[0];
  [[unroll]] for (uint i = 1; i < FRAGMENTS * FRAGMENTS; ++i)
    sum = sum + sums[i];
  if (store != 0 || sum[0] == 0x1e3779b9) {
    coopMatStore(sum, y, (workgroup_index() * gl_NumSubgroups + gl_SubgroupID) * ROWS * COLUMNS, COLUMNS,
                 gl_CooperativeMatrixLayoutRowMajor);
  }
}
