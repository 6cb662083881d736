// Where the linear kernels write y: int8 in PACKED_INT8_4W (row-major bytes if N is a multiple of 4), or
// row-major float32.
layout(set = 0, binding = 5) writeonly buffer YWords { int y_words[]; };
layout(set = 0, binding = 5) writeonly buffer YChunks { ivec4 y_chunks[]; };
layout(set = 0, binding = 5) writeonly buffer YPairs { ivec2 y_pairs[]; };
layout(set = 0, binding = 5) writeonly buffer YFloats { float y_floats[]; };
layout(set = 0, binding = 5) writeonly buffer YFloatWords { vec4 y_float_words[]; };

// Four adjacent outputs from their sums; n is a multiple of 4.
void store4(uint m, uint n, ivec4 sums, Channels channels) {
  vec4 y = dequantize4(sums, channels);
  if (!FLOAT_OUTPUT) {
    y_words[m * ((N + 3) / 4) + n / 4] = quantize4(y, n);
  } else if (N % 4 == 0) {
    y_float_words[(m * N + n) / 4] = y;
  } else {
    [[unroll]] for (uint i = 0; i < 4; ++i)
      if (n + i < N) y_floats[m * N + n + i] = y[i];
  }
}
