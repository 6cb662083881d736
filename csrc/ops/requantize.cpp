#include "ops/requantize.h"

#include <algorithm>

#include "kernels/host_quantize.h"
#include "ops/checks.h"

namespace q8ta::ops {

// On the host whatever device is selected: a byte in and a byte out is less than what moving them costs.
Tensor requantize(const Tensor& x, double input_scale, int64_t input_zero_point, double output_scale,
                  int64_t output_zero_point) {
  constexpr int64_t kGrain = 65'536;  // bytes worth a thread
  check_requantize(x);
  const auto table = kernels::requantize_table(
      check_quantization("requantize", input_scale, input_zero_point, output_scale, output_zero_point));
  const auto sizes = x.sizes();
  Tensor y = empty_cpu({sizes.begin(), sizes.end()}, ScalarType::Char);
  const Tensor dense = made_contiguous(x);
  const auto* from = static_cast<const int8_t*>(dense.const_data_ptr());
  auto* to = static_cast<int8_t*>(y.mutable_data_ptr());
  torch::stable::parallel_for(0, x.numel(), kGrain, [&](int64_t begin, int64_t end) {
    std::transform(from + begin, from + end, to + begin,
                   [&table](int8_t value) { return table[value + 128]; });
  });
  return y;
}

}  // namespace q8ta::ops
