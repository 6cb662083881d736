#include "ops/checks.h"

#include <cmath>

#include "ops/messages.h"

namespace q8ta::ops {
namespace {

void check_cpu(const char* op, const char* argument, const Tensor& tensor) {
  if (!tensor.is_cpu()) fail(op, argument, "expected a CPU tensor, as the other tensors are");
}

void check_tensor(const char* op, const char* argument, const Tensor& tensor, ScalarType type) {
  check_cpu(op, argument, tensor);
  check_type(op, argument, tensor, type);
}

}  // namespace

void check_on_cpu(const LinearArguments<Tensor>& arguments) {
  const char* op = arguments.op;
  check_cpu(op, "x", arguments.x);
  check_cpu(op, "weights", arguments.weights);
  check_cpu(op, "weight_sums", arguments.weight_sums);
  check_cpu(op, "weight_scales", arguments.weight_scales);
  if (arguments.bias) check_cpu(op, "bias", *arguments.bias);
}

void check_requantize(const Tensor& x) { check_tensor("requantize", "x", x, ScalarType::Char); }

void check_weight_scales(const char* op, const float* weight_scales, int64_t N) {
  for (int64_t n = 0; n < N; ++n) {
    if (!std::isfinite(weight_scales[n]) || !(weight_scales[n] > 0.0F)) {
      fail(op, "weight_scales", "expected finite numbers > 0, got ", weight_scales[n], " at index ", n);
    }
  }
}

kernels::Layout check_layout(const char* op, int64_t layout) {
  const auto value = static_cast<kernels::Layout>(layout);
  if (value != kernels::Layout::packed_int8_4h4w && value != kernels::Layout::packed_int8_4w) {
    fail(op, "layout", "expected 4 (PACKED_INT8_4H4W) or 5 (PACKED_INT8_4W), got ", layout);
  }
  return value;
}

namespace {

kernels::Matrices matrices_of(const std::vector<int64_t>& sizes) {
  kernels::Matrices matrices{1, sizes[sizes.size() - 2], sizes[sizes.size() - 1]};
  for (size_t i = 0; i + 2 < sizes.size(); ++i) matrices.count *= sizes[i];
  return matrices;
}

}  // namespace

std::vector<int64_t> packed_sizes(const std::vector<int64_t>& sizes, kernels::Layout layout) {
  std::vector<int64_t> packed = sizes;
  packed.back() = kernels::ceil_div(packed.back(), 4);
  if (layout == kernels::Layout::packed_int8_4h4w) {
    packed[packed.size() - 2] = kernels::ceil_div(packed[packed.size() - 2], 4);
    packed.push_back(4);
  }
  return packed;
}

kernels::Matrices check_pack(const Tensor& x) {
  check_tensor("pack", "x", x, ScalarType::Char);
  const std::vector<int64_t> sizes = sizes_of(x);
  if (sizes.size() < 2) fail("pack", "x", "expected shape [..., M, K], got ", sizes);
  return matrices_of(sizes);
}

kernels::Matrices check_unpack(const Tensor& packed, kernels::Layout layout,
                               const std::vector<int64_t>& sizes) {
  check_tensor("unpack", "packed", packed, ScalarType::Int);
  if (sizes.size() < 2) fail("unpack", "sizes", "expected [..., M, K], got ", sizes);
  for (const int64_t size : sizes) {
    if (size < 0) fail("unpack", "sizes", "expected sizes >= 0, got ", sizes);
  }
  const std::vector<int64_t> expected = packed_sizes(sizes, layout);
  if (sizes_of(packed) != expected) {
    fail("unpack", "packed", "expected shape ", expected, " for sizes ", sizes, ", got ", sizes_of(packed));
  }
  return matrices_of(sizes);
}

}  // namespace q8ta::ops
