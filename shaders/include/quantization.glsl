// The two formulas of quantization and the four values of a word. `precise` keeps every step a rounding of
// its own: a fused multiply-add would differ from the reference.

// q = clamp(roundEven(y * inverse_scale) + zero_point, low, high)
// Clamped before the conversion: converting a float that no int can hold is undefined. `round` may break ties
// either way, so roundEven.
int quantize_value(float y, float inverse_scale, int zero_point, float low, float high) {
  precise float scaled = y * inverse_scale;
  precise float shifted = roundEven(scaled) + float(zero_point);
  return int(clamp(shifted, low, high));
}

// y = (q - zero_point) * scale
float dequantize_value(int q, float scale, int zero_point) {
  precise float y = float(q - zero_point) * scale;
  return y;
}

int pack4(ivec4 bytes) {
  ivec4 low = bytes & 0xff;
  return low.x | low.y << 8 | low.z << 16 | low.w << 24;
}

ivec4 unpack4(int word, bool is_signed) {
  ivec4 bytes = ivec4(word, word >> 8, word >> 16, word >> 24);
  return is_signed ? bytes << 24 >> 24 : bytes & 0xff;
}
