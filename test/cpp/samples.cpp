#include "samples.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace q8ta::test {
namespace {

size_t index_of(int64_t index) { return static_cast<size_t>(index); }

int8_t quantize(float y, const kernels::Quantization& quantization) {
  const float rounded = std::nearbyint(y * quantization.inverse_output_scale);
  const float shifted = rounded + static_cast<float>(quantization.output_zero_point);
  return static_cast<int8_t>(std::clamp(shifted, -128.0F, 127.0F));
}

}  // namespace

uint32_t Numbers::next() {
  state_ = state_ * 6'364'136'223'846'793'005U + 1'442'695'040'888'963'407U;
  return static_cast<uint32_t>(state_ >> 33U);
}

float Numbers::between(float low, float high) {
  return low + (high - low) * static_cast<float>(below(1U << 24U)) / 16'777'216.0F;
}

Sample::Sample(const Sizes& sizes, const Options& options)
    : row_stride(options.row_stride == 0 ? sizes.K : options.row_stride),
      x(index_of(sizes.M * sizes.K), options.offset),
      weights(index_of((sizes.N - 1) * row_stride + sizes.K), options.offset) {
  Numbers numbers(options.seed);
  problem.M = static_cast<uint32_t>(sizes.M);
  problem.K = static_cast<uint32_t>(sizes.K);
  problem.N = static_cast<uint32_t>(sizes.N);
  problem.has_bias = options.has_bias;
  problem.relu = options.relu;
  problem.float_output = options.float_output;
  problem.quantization = {numbers.between(0.01F, 0.1F), numbers.byte(), numbers.between(0.5F, 2.0F),
                          numbers.byte()};
  std::generate_n(x.data(), x.size(), [&] { return numbers.byte(); });
  std::generate_n(weights.data(), weights.size(), [&] { return numbers.byte(); });
  if (numbers.below(8) == 0) std::fill_n(x.data(), x.size(), int8_t{-128});  // the largest sums
  if (numbers.below(8) == 0) std::fill_n(weights.data(), weights.size(), int8_t{-128});
  // Sums of such products are this large on average; then results are all over the int8 range.
  const float typical = 5461.0F * std::sqrt(static_cast<float>(sizes.K));
  for (int64_t n = 0; n < sizes.N; ++n) {
    int32_t sum = 0;
    for (int64_t k = 0; k < sizes.K; ++k) sum += weights.data()[n * row_stride + k];
    weight_sums.push_back(sum);
    weight_scales.push_back(numbers.between(60.0F, 120.0F) / typical / problem.quantization.input_scale);
    if (options.has_bias) bias.push_back(numbers.between(-20.0F, 20.0F));
  }
}

kernels::HostChannels Sample::channels() const {
  return {weight_sums.data(), weight_scales.data(), problem.has_bias ? bias.data() : nullptr};
}

size_t Sample::y_bytes() const {
  return size_t{problem.M} * problem.N * (problem.float_output ? sizeof(float) : 1);
}

std::vector<int8_t> Sample::expected() const {
  std::vector<int8_t> result(y_bytes());
  const kernels::Quantization& quantization = problem.quantization;
  for (size_t m = 0; m < problem.M; ++m) {
    for (size_t n = 0; n < problem.N; ++n) {
      const int8_t* row = x.data() + m * problem.K;
      const int8_t* column = weights.data() + n * index_of(row_stride);
      int32_t sum = 0;
      for (size_t k = 0; k < problem.K; ++k) sum += int32_t{row[k]} * int32_t{column[k]};
      sum -= quantization.input_zero_point * weight_sums[n];
      const float multiplier = quantization.input_scale * weight_scales[n];
      float y = static_cast<float>(sum) * multiplier;
      if (problem.has_bias) y = y + bias[n];
      if (problem.relu) y = std::max(y, 0.0F);
      const size_t index = m * problem.N + n;
      if (problem.float_output) {
        std::memcpy(result.data() + index * sizeof(y), &y, sizeof(y));
      } else {
        result[index] = quantize(y, quantization);
      }
    }
  }
  return result;
}

}  // namespace q8ta::test
