#include "ops/int_matmul.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

namespace q8ta::ops {
namespace {

/// weights [N, K] as [K, N], in strides that torch._int_mm computes right: on the CPU (torch 2.13,
/// oneDNN 3.12) it reads garbage when a stride is smaller than the size of the other dimension, which also
/// happens when a size is 1.
Tensor transposed_for_int_mm(const Tensor& weights) {
  const int64_t N = weights.size(0);
  const int64_t K = weights.size(1);
  if (N == 1 || K == 1) return torch::stable::view(made_contiguous(weights), {K, N});
  const bool dense_rows = weights.stride(1) == 1 && weights.stride(0) >= K;
  return torch::stable::transpose(dense_rows ? weights : made_contiguous(weights), 0, 1);
}

/// Sums of int8 products stay far below 2^53, so float64 adds them exactly in any order.
Tensor float64_mm(const Tensor& x, const Tensor& weights) {
  constexpr int64_t kSliceElements = int64_t{1} << 23;  // of the weights in float64 at a time: 64 MiB
  const int64_t M = x.size(0);
  const int64_t N = weights.size(0);
  const int64_t K = weights.size(1);
  const Tensor x_double = torch::stable::to(x, ScalarType::Double);
  Tensor accumulators = torch::stable::new_empty(x, {M, N}, ScalarType::Int);
  const int64_t slice_rows = std::max<int64_t>(kSliceElements / K, 1);
  for (int64_t first = 0; first < N; first += slice_rows) {
    const int64_t rows = std::min(slice_rows, N - first);
    Tensor source = weights;
    const Tensor slice = torch::stable::to(torch::stable::narrow(source, 0, first, rows), ScalarType::Double);
    Tensor destination = torch::stable::narrow(accumulators, 1, first, rows);
    torch::stable::copy_(destination, torch::stable::matmul(x_double, torch::stable::transpose(slice, 0, 1)));
  }
  return accumulators;
}

Tensor filled_int8(const Tensor& like, int64_t rows, int64_t columns, int pattern) {
  Tensor tensor = torch::stable::new_empty(like, {rows, columns}, ScalarType::Char);
  auto* data = static_cast<int8_t*>(tensor.mutable_data_ptr());
  uint32_t state = 12'345;
  for (int64_t i = 0; i < rows * columns; ++i) {
    state = state * 1'664'525U + 1'013'904'223U;
    constexpr std::array<int8_t, 2> kExtremes{127, -128};
    data[i] = pattern < 2 ? kExtremes[pattern] : static_cast<int8_t>(state >> 24);
  }
  return tensor;
}

bool equal(const Tensor& a, const Tensor& b) {
  return std::memcmp(a.const_data_ptr(), b.const_data_ptr(),
                     static_cast<size_t>(a.numel()) * sizeof(int32_t)) == 0;
}

/// On x86 without VNNI oneDNN adds pairs of products in saturating int16 (seen with ONEDNN_MAX_CPU_ISA=AVX2
/// and AVX512_CORE), so large values give wrong sums.
bool probe_int_mm(const Tensor& like) {
  constexpr std::array<std::array<int64_t, 3>, 4> kShapes{
      {{1, 64, 1}, {1, 64, 32}, {4, 64, 32}, {32, 512, 48}}};
  for (const auto& [M, K, N] : kShapes) {
    for (int pattern = 0; pattern < 3; ++pattern) {
      const Tensor x = filled_int8(like, M, K, pattern);
      const Tensor weights = filled_int8(like, N, K, pattern);
      if (!equal(int_mm(x, transposed_for_int_mm(weights)), float64_mm(x, weights))) return false;
    }
  }
  return true;
}

}  // namespace

IntProduct int_matmul(const Tensor& x, const Tensor& weights) {
  static const bool int_mm_is_exact = probe_int_mm(x);
  if (int_mm_is_exact) return {int_mm(x, transposed_for_int_mm(weights)), "host/int_mm"};
  return {float64_mm(x, weights), "host/float64_mm"};
}

}  // namespace q8ta::ops
