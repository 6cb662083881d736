#include <torch/csrc/stable/library.h>

#include "ops/linear.h"
#include "ops/pack.h"
#include "ops/requantize.h"

// The first two schemas equal those of ExecuTorch's et_vk.q8ta_linear and et_vk.q8ta_linear_gemv.
STABLE_TORCH_LIBRARY(q8ta, library) {
  library.def(
      "linear(Tensor x, float input_scale, int input_zero_point, Tensor weights, Tensor weight_sums, "
      "Tensor weight_scales, float output_scale, int output_zero_point, Tensor? bias=None, "
      "str activation=\"none\") -> Tensor");
  library.def(
      "linear_gemv(Tensor x, float input_scale, int input_zero_point, Tensor weights, Tensor weight_sums, "
      "Tensor weight_scales, float output_scale, int output_zero_point, Tensor? bias=None, "
      "str activation=\"none\") -> Tensor");
  library.def(
      "linear_dequant(Tensor x, float input_scale, int input_zero_point, Tensor weights, Tensor weight_sums, "
      "Tensor weight_scales, Tensor? bias=None, str activation=\"none\") -> Tensor");
  library.def(
      "requantize(Tensor x, float input_scale, int input_zero_point, float output_scale, "
      "int output_zero_point) -> Tensor");
  library.def("pack(Tensor x, int layout) -> Tensor");
  library.def("unpack(Tensor packed, int layout, int[] sizes) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(q8ta, CPU, library) {
  library.impl("linear", TORCH_BOX(&q8ta::ops::linear));
  library.impl("linear_gemv", TORCH_BOX(&q8ta::ops::linear_gemv));
  library.impl("linear_dequant", TORCH_BOX(&q8ta::ops::linear_dequant));
  library.impl("requantize", TORCH_BOX(&q8ta::ops::requantize));
  library.impl("pack", TORCH_BOX(&q8ta::ops::pack));
  library.impl("unpack", TORCH_BOX(&q8ta::ops::unpack));
}
