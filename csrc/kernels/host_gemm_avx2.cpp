// Compiled for AVX2; called only where the processor has it.
#include "kernels/host_gemm_variant.h"

#if defined(__AVX2__)
#include "kernels/host_gemm_avx.h"

namespace q8ta::kernels {
namespace {

/// Bytes are widened to 16 bits: vpmaddubsw, which multiplies bytes, saturates, while vpmaddwd is exact.
struct Avx2 {
  using Floats = Floats256;
  using Vector = __m256i;  // of each column two sums, of the even and of the odd pairs of k
  static constexpr int kColumns = 4;
  static constexpr int kRows = 5;
  static constexpr int kVectors = 2;
  static constexpr int kFewRows = 2;
  static constexpr int kFewVectors = 4;
  static constexpr bool kShifted = false;
  using PreparedX = int16_t;
  using RowX = int16_t;
  static constexpr int64_t kRowStep = 32;

  static PreparedX prepared(int8_t x) { return x; }
  static Vector zero() {
    Vector sums = _mm256_setzero_si256();
    asm volatile("" : "+x"(sums));
    return sums;
  }
  static Vector weights(const int8_t* p) {
    return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static Vector broadcast(const uint8_t* p) {
    int64_t words;
    __builtin_memcpy(&words, p, sizeof(words));
    return _mm256_set1_epi64x(words);
  }
  static Vector dot(Vector sums, Vector x, Vector weights) {
    return _mm256_add_epi32(sums, _mm256_madd_epi16(x, weights));
  }
  static void store(int32_t* p, Vector sums, const int32_t* start) {
    const __m128i columns = _mm_hadd_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                     _mm_add_epi32(columns, _mm_loadu_si128(reinterpret_cast<const __m128i*>(start))));
  }
  static Vector dot_along_row(Vector sums, const int16_t* x, const int8_t* weights) {
    const Vector first = dot(sums, load_256(x), Avx2::weights(weights));
    return dot(first, load_256(x + 16), Avx2::weights(weights + 16));
  }
  static void reduce(const Vector* sums, int32_t* p) { reduce_256(sums, p); }
};

bool runs_here() { return __builtin_cpu_supports("avx2") != 0; }

constexpr HostVariant kVariant{"avx2", &runs_here, rows_path<Avx2>(), packed_path<Avx2>()};

}  // namespace

const HostVariant* avx2_variant() { return &kVariant; }

}  // namespace q8ta::kernels

#else

const q8ta::kernels::HostVariant* q8ta::kernels::avx2_variant() { return nullptr; }

#endif
