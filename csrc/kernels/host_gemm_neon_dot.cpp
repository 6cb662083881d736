// Compiled for 64-bit Arm with the dot product instructions; called only where the processor has them.
#include "kernels/host_gemm_variant.h"

#if defined(__aarch64__) && defined(__ARM_FEATURE_DOTPROD) && defined(__linux__)
#include <arm_neon.h>
#include <sys/auxv.h>

#include "kernels/host_gemm_blocks.h"

namespace q8ta::kernels {
namespace {

struct NeonDot {
  using Floats = ScalarFloats;
  using Vector = int32x4_t;
  static constexpr int kColumns = 4;
  static constexpr int kRows = 6;
  static constexpr int kVectors = 4;
  static constexpr int kFewRows = 3;
  static constexpr int kFewVectors = 8;
  static constexpr bool kShifted = false;
  using PreparedX = int8_t;
  using RowX = int8_t;
  static constexpr int64_t kRowStep = 16;

  static PreparedX prepared(int8_t x) { return x; }
  static Vector zero() {
    Vector sums = vdupq_n_s32(0);
    asm volatile("" : "+w"(sums));
    return sums;
  }
  static int8x16_t weights(const int8_t* p) { return vld1q_s8(p); }
  static int8x16_t broadcast(const uint8_t* p) {
    int32_t word;
    __builtin_memcpy(&word, p, sizeof(word));
    return vreinterpretq_s8_s32(vdupq_n_s32(word));
  }
  static Vector dot(Vector sums, int8x16_t x, int8x16_t weights) { return vdotq_s32(sums, x, weights); }
  static void store(int32_t* p, Vector sums, const int32_t* start) {
    vst1q_s32(p, vaddq_s32(sums, vld1q_s32(start)));
  }
  static Vector dot_along_row(Vector sums, const int8_t* x, const int8_t* weights) {
    return vdotq_s32(sums, vld1q_s8(x), vld1q_s8(weights));
  }
  static void reduce(const Vector* sums, int32_t* p) {
    for (int i = 0; i < 4; ++i) p[i] = vaddvq_s32(sums[i]);
  }
};

bool runs_here() {
  constexpr unsigned long kDotProduct = 1UL << 20;  // HWCAP_ASIMDDP
  return (getauxval(AT_HWCAP) & kDotProduct) != 0;
}

constexpr HostVariant kVariant{"neon_dot", &runs_here, rows_path<NeonDot>(), packed_path<NeonDot>()};

}  // namespace

const HostVariant* neon_dot_variant() { return &kVariant; }

}  // namespace q8ta::kernels

#else

const q8ta::kernels::HostVariant* q8ta::kernels::neon_dot_variant() { return nullptr; }

#endif
