// The epilogue of shaders/include/linear.glsl on the host, for vectors of any instruction set. Files that
// include this are compiled with -ffp-contract=off: a fused multiply-add would round differently from the GPU
// and the reference. All of it is in an unnamed namespace and uses no inline function of the standard
// library, so that no code for a newer processor can be linked into what runs on any.
#pragma once

#include <cstdint>

#include "kernels/linear_types.h"

namespace q8ta::kernels {
namespace {

/// One number as a vector. Loops over it are vectorized by compilers, too.
struct ScalarFloats {
  using Vector = float;
  static constexpr int64_t kCount = 1;
  static Vector all(float value) { return value; }
  static Vector load(const float* p) { return *p; }
  static Vector converted(const int32_t* p) { return static_cast<float>(*p); }
  static Vector add(Vector a, Vector b) { return a + b; }
  static Vector multiply(Vector a, Vector b) { return a * b; }
  // Of a NaN and of zeros, b.
  static Vector larger(Vector a, Vector b) { return a > b ? a : b; }
  static Vector smaller(Vector a, Vector b) { return a < b ? a : b; }
  static void store(float* p, Vector y) { *p = y; }
  /// The lowest bytes of the bits + offset.
  static void store_bytes(int8_t* p, Vector y, int32_t offset) {
    int32_t bits;
    __builtin_memcpy(&bits, &y, sizeof(bits));
    *p = static_cast<int8_t>(bits + offset);
  }
};

/// clamp(roundEven(max(y, 0) / output_scale) + output_zero_point, -128, 127), max only if `relu`.
template <typename Floats, bool relu>
inline void store_quantized(int8_t* p, typename Floats::Vector y, const Quantization& quantization) {
  // Clamping to integers before rounding is the same as afterwards. relu is a clamp, too: multiplying by a
  // number > 0 keeps the sign. Adding 1.5 * 2^23 rounds to an integer, ties to even, and leaves it in the low
  // bits.
  const int32_t zero_point = quantization.output_zero_point;
  const auto low = Floats::all(relu ? 0.0F : static_cast<float>(-128 - zero_point));
  const auto high = Floats::all(static_cast<float>(127 - zero_point));
  const auto scaled = Floats::multiply(y, Floats::all(quantization.inverse_output_scale));
  const auto clamped = Floats::smaller(Floats::larger(scaled, low), high);
  Floats::store_bytes(p, Floats::add(clamped, Floats::all(12'582'912.0F)), zero_point);
}

/// What an epilogue makes y of: `adjusted` are the sums less input_zero_point * weight_sums.
struct EpilogueInputs {
  const int32_t* adjusted;
  const float* multipliers;
  const float* biases;
};

template <typename Floats, bool has_bias>
inline typename Floats::Vector dequantized(const EpilogueInputs& inputs, int64_t i) {
  auto y = Floats::multiply(Floats::converted(inputs.adjusted + i), Floats::load(inputs.multipliers + i));
  if (has_bias) y = Floats::add(y, Floats::load(inputs.biases + i));
  return y;
}

/// y of output channels begin .. end - 1, a multiple of Floats::kCount. Vectorized by compilers where Floats
/// are scalar, hence the restricted pointers: an int8 store may alias anything else.
template <typename Floats, bool has_bias, bool relu>
inline void finish_range(const LinearProblem& problem, const EpilogueInputs& inputs, int64_t begin,
                         int64_t end, void* y) {
  if (problem.float_output) {
    auto* __restrict out = static_cast<float*>(y);
    for (int64_t i = begin; i < end; i += Floats::kCount) {
      const auto value = dequantized<Floats, has_bias>(inputs, i);
      const auto zero = Floats::all(0.0F);
      // -0 + 0 is 0: relu gives no -0, on the host as on devices.
      Floats::store(out + i, relu ? Floats::add(Floats::larger(zero, value), zero) : value);
    }
  } else {
    const Quantization quantization = problem.quantization;
    auto* __restrict out = static_cast<int8_t*>(y);
    for (int64_t i = begin; i < end; i += Floats::kCount) {
      store_quantized<Floats, relu>(out + i, dequantized<Floats, has_bias>(inputs, i), quantization);
    }
  }
}

template <typename Floats, bool has_bias, bool relu>
inline void finish_row(const LinearProblem& problem, const EpilogueInputs& inputs, int64_t count, void* y) {
  const int64_t whole = count / Floats::kCount * Floats::kCount;
  finish_range<Floats, has_bias, relu>(problem, inputs, 0, whole, y);
  finish_range<ScalarFloats, has_bias, relu>(problem, inputs, whole, count, y);
}

/// y of `count` adjacent output channels of one row.
template <typename Floats>
inline void host_epilogue(const LinearProblem& problem, const EpilogueInputs& inputs, int64_t count,
                          void* y) {
  if (problem.has_bias) {
    if (problem.relu) {
      finish_row<Floats, true, true>(problem, inputs, count, y);
    } else {
      finish_row<Floats, true, false>(problem, inputs, count, y);
    }
  } else if (problem.relu) {
    finish_row<Floats, false, true>(problem, inputs, count, y);
  } else {
    finish_row<Floats, false, false>(problem, inputs, count, y);
  }
}

}  // namespace
}  // namespace q8ta::kernels
