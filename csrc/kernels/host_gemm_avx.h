// What the host kernels with vectors of 256 bits share.
#pragma once

#include <immintrin.h>

#include "kernels/host_gemm_blocks.h"

namespace q8ta::kernels {
namespace {

inline __m256i load_256(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }

/// 4 sums over 8 int32 each.
inline void reduce_256(const __m256i* sums, int32_t* p) {
  const __m256i fours =
      _mm256_hadd_epi32(_mm256_hadd_epi32(sums[0], sums[1]), _mm256_hadd_epi32(sums[2], sums[3]));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                   _mm_add_epi32(_mm256_castsi256_si128(fours), _mm256_extracti128_si256(fours, 1)));
}

/// Vectors of the epilogue.
struct Floats256 {
  using Vector = __m256;
  static constexpr int64_t kCount = 8;
  static Vector all(float value) { return _mm256_set1_ps(value); }
  static Vector load(const float* p) { return _mm256_loadu_ps(p); }
  static Vector converted(const int32_t* p) { return _mm256_cvtepi32_ps(load_256(p)); }
  static Vector add(Vector a, Vector b) { return _mm256_add_ps(a, b); }
  static Vector multiply(Vector a, Vector b) { return _mm256_mul_ps(a, b); }
  static Vector larger(Vector a, Vector b) { return _mm256_max_ps(a, b); }
  static Vector smaller(Vector a, Vector b) { return _mm256_min_ps(a, b); }
  static void store(float* p, Vector y) { _mm256_storeu_ps(p, y); }
  static void store_bytes(int8_t* p, Vector y, int32_t offset) {
    const __m256i words = _mm256_add_epi32(_mm256_castps_si256(y), _mm256_set1_epi32(offset));
    const __m256i lowest = _mm256_set1_epi32(0x0C080400);  // byte 0 of each word, to the front of its half
    const __m256i bytes = _mm256_shuffle_epi8(words, lowest);
    const __m128i eight =
        _mm_unpacklo_epi32(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(p), eight);
  }
};

}  // namespace
}  // namespace q8ta::kernels
