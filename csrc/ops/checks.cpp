#include "ops/checks.h"

#include <cmath>

#include "ops/messages.h"

namespace q8ta::ops {

void check_on_cpu(const char* op, const char* argument, const Tensor& tensor) {
  if (!tensor.is_cpu()) fail(op, argument, "expected a CPU tensor, as the other tensors are");
}

void check_on_cpu(const LinearArguments<Tensor>& arguments) {
  const char* op = arguments.op;
  check_on_cpu(op, "x", arguments.x);
  check_on_cpu(op, "weights", arguments.weights);
  check_on_cpu(op, "weight_sums", arguments.weight_sums);
  check_on_cpu(op, "weight_scales", arguments.weight_scales);
  if (arguments.bias) check_on_cpu(op, "bias", *arguments.bias);
}

void check_requantize(const Tensor& x) {
  check_on_cpu("requantize", "x", x);
  check_type("requantize", "x", x, ScalarType::Char);
}

void check_weight_scales(const char* op, const float* weight_scales, int64_t N) {
  for (int64_t n = 0; n < N; ++n) {
    if (!std::isfinite(weight_scales[n]) || !(weight_scales[n] > 0.0F)) {
      fail(op, "weight_scales", "expected finite numbers > 0, got ", weight_scales[n], " at index ", n);
    }
  }
}

}  // namespace q8ta::ops
