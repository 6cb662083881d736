// Checks of pack's and unpack's arguments, for the tensors of libtorch's stable ABI (CPU) and of its classic
// one (the vk device), as in linear_checks.h.
#pragma once

#include "ops/linear_checks.h"

namespace q8ta::ops {

inline kernels::Layout check_layout(const char* op, int64_t layout) {
  const auto value = static_cast<kernels::Layout>(layout);
  if (value != kernels::Layout::packed_int8_4h4w && value != kernels::Layout::packed_int8_4w) {
    fail(op, "layout", "expected 4 (PACKED_INT8_4H4W) or 5 (PACKED_INT8_4W), got ", layout);
  }
  return value;
}

/// Sizes of the packed tensor: [..., M, K4] (4W) or [..., M4, K4, 4] (4H4W).
inline std::vector<int64_t> packed_sizes(const std::vector<int64_t>& sizes, kernels::Layout layout) {
  std::vector<int64_t> packed = sizes;
  packed.back() = kernels::ceil_div(packed.back(), 4);
  if (layout == kernels::Layout::packed_int8_4h4w) {
    packed[packed.size() - 2] = kernels::ceil_div(packed[packed.size() - 2], 4);
    packed.push_back(4);
  }
  return packed;
}

inline kernels::Matrices matrices_of(const std::vector<int64_t>& sizes) {
  kernels::Matrices matrices{1, sizes[sizes.size() - 2], sizes[sizes.size() - 1]};
  for (size_t i = 0; i + 2 < sizes.size(); ++i) matrices.count *= sizes[i];
  return matrices;
}

/// x int8 [..., rows, columns].
template <typename Tensor>
kernels::Matrices check_pack(const Tensor& x) {
  check_type("pack", "x", x, ScalarType::Char);
  const std::vector<int64_t> sizes = sizes_of(x);
  if (sizes.size() < 2) fail("pack", "x", "expected shape [..., M, K], got ", sizes);
  return matrices_of(sizes);
}

/// `sizes` is [..., rows, columns]; packed has the layout's shape for them.
template <typename Tensor>
kernels::Matrices check_unpack(const Tensor& packed, kernels::Layout layout,
                               const std::vector<int64_t>& sizes) {
  check_type("unpack", "packed", packed, ScalarType::Int);
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
