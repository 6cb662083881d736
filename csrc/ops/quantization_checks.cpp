#include "ops/quantization_checks.h"

#include <cmath>

#include "ops/messages.h"

namespace q8ta::ops {
namespace {

float check_scale(const char* op, const char* argument, double scale) {
  const auto value = static_cast<float>(scale);
  if (!std::isfinite(value) || !(value > 0.0F)) {
    fail(op, argument, "expected a finite number > 0 in float32, got ", scale);
  }
  return value;
}

int32_t check_zero_point(const char* op, const char* argument, int64_t zero_point) {
  if (zero_point < -128 || zero_point > 127) {
    fail(op, argument, "expected a value in [-128, 127], got ", zero_point);
  }
  return static_cast<int32_t>(zero_point);
}

}  // namespace

kernels::Quantization check_quantization(const char* op, double input_scale, int64_t input_zero_point,
                                         double output_scale, int64_t output_zero_point) {
  kernels::Quantization checked;
  checked.input_scale = check_scale(op, "input_scale", input_scale);
  checked.input_zero_point = check_zero_point(op, "input_zero_point", input_zero_point);
  check_scale(op, "output_scale", output_scale);
  checked.inverse_output_scale = static_cast<float>(1.0 / output_scale);
  if (!std::isfinite(checked.inverse_output_scale) || checked.inverse_output_scale == 0.0F) {
    fail(op, "output_scale", "expected a number whose reciprocal is a finite float32 > 0, got ",
         output_scale);
  }
  checked.output_zero_point = check_zero_point(op, "output_zero_point", output_zero_point);
  return checked;
}

}  // namespace q8ta::ops
