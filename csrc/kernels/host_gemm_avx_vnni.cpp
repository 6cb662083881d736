// Compiled for AVX2 with AVX-VNNI; called only where the processor has them.
#include "kernels/host_gemm_variant.h"

#if defined(__AVXVNNI__) && defined(__AVX2__)
#include "kernels/host_gemm_avx.h"

namespace q8ta::kernels {
namespace {

/// vpdpbusd multiplies unsigned by signed bytes: one side is shifted by 128, which is taken off again.
struct AvxVnni {
  using Floats = Floats256;
  using Vector = __m256i;
  static constexpr int kColumns = 8;
  static constexpr int kRows = 6;
  static constexpr int kVectors = 2;
  static constexpr int kFewRows = 2;
  static constexpr int kFewVectors = 4;
  static constexpr bool kShifted = true;
  using PreparedX = uint8_t;
  using RowX = int8_t;
  static constexpr int64_t kRowStep = 32;

  static PreparedX prepared(int8_t x) { return static_cast<uint8_t>(x) ^ 0x80U; }
  static Vector zero() {
    Vector sums = _mm256_setzero_si256();
    asm volatile("" : "+x"(sums));
    return sums;
  }
  static Vector weights(const int8_t* p) { return load_256(p); }
  static Vector broadcast(const uint8_t* p) {
    int32_t word;
    __builtin_memcpy(&word, p, sizeof(word));
    return _mm256_set1_epi32(word);
  }
  static Vector dot(Vector sums, Vector x, Vector weights) {
    return _mm256_dpbusd_avx_epi32(sums, x, weights);
  }
  static void store(int32_t* p, Vector sums, const int32_t* start) {
    _mm256_storeu_si256(reinterpret_cast<Vector*>(p), _mm256_add_epi32(sums, load_256(start)));
  }
  static Vector dot_along_row(Vector sums, const int8_t* x, const int8_t* weights) {
    const Vector shifted = _mm256_xor_si256(load_256(weights), _mm256_set1_epi8(-128));
    return _mm256_dpbusd_avx_epi32(sums, shifted, load_256(x));
  }
  static void reduce(const Vector* sums, int32_t* p) { reduce_256(sums, p); }
};

bool runs_here() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("avxvnni"); }

constexpr HostVariant kVariant{"avx_vnni", &runs_here, rows_path<AvxVnni>(), packed_path<AvxVnni>()};

}  // namespace

const HostVariant* avx_vnni_variant() { return &kVariant; }

}  // namespace q8ta::kernels

#else

const q8ta::kernels::HostVariant* q8ta::kernels::avx_vnni_variant() { return nullptr; }

#endif
