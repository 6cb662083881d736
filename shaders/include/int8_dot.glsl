// dot4(a, b): sum of the products of four signed bytes each. INT_DOT: by the packed dot product of
// SPV_KHR_integer_dot_product, declared here because glslang before 13 does not know
// GL_EXT_integer_dot_product.
#if INT_DOT
#extension GL_EXT_spirv_intrinsics : require
// 4450: OpSDot. Capabilities 6019: DotProduct, 6018: DotProductInput4x8BitPacked. Format 0: 4x8 bits in a
// word.
spirv_instruction(extensions = ["SPV_KHR_integer_dot_product"], capabilities = [ 6019, 6018 ],
                  id = 4450) int packed_dot_product(int a, int b, spirv_literal int packed_format);

int dot4(int a, int b) { return packed_dot_product(a, b, 0); }
#else
int dot4(int a, int b) {
  return bitfieldExtract(a, 0, 8) * bitfieldExtract(b, 0, 8) +
         bitfieldExtract(a, 8, 8) * bitfieldExtract(b, 8, 8) +
         bitfieldExtract(a, 16, 8) * bitfieldExtract(b, 16, 8) + (a >> 24) * (b >> 24);
}
#endif

int dot16(ivec4 a, ivec4 b) { return dot4(a.x, b.x) + dot4(a.y, b.y) + dot4(a.z, b.z) + dot4(a.w, b.w); }
