// For any processor: plain loops along the rows of the weights, which compilers vectorize.
#include "kernels/host_gemm_blocks.h"

namespace q8ta::kernels {
namespace {

struct Portable {
  using Floats = ScalarFloats;
  struct Vector {
    int32_t sum;
  };
  static constexpr bool kShifted = false;
  using RowX = int16_t;
  static constexpr int64_t kRowStep = 256;

  static Vector zero() { return {0}; }
  static Vector dot_along_row(Vector sums, const int16_t* x, const int8_t* weights) {
    for (int64_t k = 0; k < kRowStep; ++k) sums.sum += int32_t{x[k]} * int32_t{weights[k]};
    return sums;
  }
  static void reduce(const Vector* sums, int32_t* p) {
    for (int i = 0; i < 4; ++i) p[i] = sums[i].sum;
  }
};

bool runs_here() { return true; }

constexpr HostVariant kVariant{"portable", &runs_here, rows_path<Portable>(), {}};

}  // namespace

const HostVariant* portable_variant() { return &kVariant; }

}  // namespace q8ta::kernels
