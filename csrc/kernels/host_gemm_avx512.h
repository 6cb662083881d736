// What the host kernels with vectors of 512 bits share.
#pragma once

#include <immintrin.h>

#include "kernels/host_gemm_blocks.h"

namespace q8ta::kernels {
namespace {

/// Vectors of the epilogue.
struct Floats512 {
  using Vector = __m512;
  static constexpr int64_t kCount = 16;
  static Vector all(float value) { return _mm512_set1_ps(value); }
  static Vector load(const float* p) { return _mm512_loadu_ps(p); }
  static Vector converted(const int32_t* p) { return _mm512_cvtepi32_ps(_mm512_loadu_si512(p)); }
  static Vector add(Vector a, Vector b) { return _mm512_add_ps(a, b); }
  static Vector multiply(Vector a, Vector b) { return _mm512_mul_ps(a, b); }
  static Vector larger(Vector a, Vector b) { return _mm512_max_ps(a, b); }
  static Vector smaller(Vector a, Vector b) { return _mm512_min_ps(a, b); }
  static void store(float* p, Vector y) { _mm512_storeu_ps(p, y); }
  static void store_bytes(int8_t* p, Vector y, int32_t offset) {
    const __m512i words = _mm512_add_epi32(_mm512_castps_si512(y), _mm512_set1_epi32(offset));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(words));
  }
};

/// vpdpbusd multiplies unsigned by signed bytes: one side is shifted by 128, which is taken off again.
struct Avx512Vnni {
  using Floats = Floats512;
  using Vector = __m512i;
  static constexpr int kColumns = 16;
  static constexpr int kRows = 12;
  static constexpr int kVectors = 2;
  static constexpr int kFewRows = 6;
  static constexpr int kFewVectors = 4;
  static constexpr bool kShifted = true;
  using PreparedX = uint8_t;
  using RowX = int8_t;
  static constexpr int64_t kRowStep = 64;

  static PreparedX prepared(int8_t x) { return static_cast<uint8_t>(x) ^ 0x80U; }
  static Vector zero() {
    Vector sums = _mm512_setzero_si512();
    asm volatile("" : "+v"(sums));
    return sums;
  }
  static Vector weights(const int8_t* p) { return _mm512_loadu_si512(p); }
  static Vector broadcast(const uint8_t* p) {
    int32_t word;
    __builtin_memcpy(&word, p, sizeof(word));
    return _mm512_set1_epi32(word);
  }
  static Vector dot(Vector sums, Vector x, Vector weights) { return _mm512_dpbusd_epi32(sums, x, weights); }
  static void store(int32_t* p, Vector sums, const int32_t* start) {
    _mm512_storeu_si512(p, _mm512_add_epi32(sums, _mm512_loadu_si512(start)));
  }
  static Vector dot_along_row(Vector sums, const int8_t* x, const int8_t* weights) {
    const Vector shifted = _mm512_xor_si512(_mm512_loadu_si512(weights), _mm512_set1_epi8(-128));
    return _mm512_dpbusd_epi32(sums, shifted, _mm512_loadu_si512(x));
  }
  static void reduce(const Vector* sums, int32_t* p) {
    __m256i half[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      half[i] = _mm256_add_epi32(_mm512_castsi512_si256(sums[i]), _mm512_extracti64x4_epi64(sums[i], 1));
    }
    const __m256i fours =
        _mm256_hadd_epi32(_mm256_hadd_epi32(half[0], half[1]), _mm256_hadd_epi32(half[2], half[3]));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                     _mm_add_epi32(_mm256_castsi256_si128(fours), _mm256_extracti128_si256(fours, 1)));
  }
};

inline bool has_avx512_vnni() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
}

}  // namespace
}  // namespace q8ta::kernels
