// The host kernel of every instruction set that this processor has.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "kernels/host_gemm.h"
#include "kernels/host_packed_weights.h"
#include "kernels/host_quantize.h"
#include "kernels/layout.h"
#include "samples.h"
#include "threads.h"

namespace q8ta::test {
namespace {

/// Forces one variant while it lives.
class Forced {
 public:
  explicit Forced(const std::string& variant) { kernels::force_host_variant(variant); }
  ~Forced() { kernels::force_host_variant(""); }
  Forced(const Forced&) = delete;
  Forced& operator=(const Forced&) = delete;
};

kernels::HostPackedWeights packed(const Sample& sample) {
  kernels::HostPackedWeights weights(sample.problem.N, sample.problem.K);
  weights.pack(sample.weights.data(), sample.row_stride, 1, 0, weights.panel_count());
  return weights;
}

/// y, from memory that ends where y does.
std::vector<int8_t> computed(const Sample& sample, const kernels::HostWeights& weights,
                             const kernels::HostThreads& threads, size_t y_offset) {
  ExactBytes y(sample.y_bytes(), y_offset);
  const bool valid = kernels::host_linear(sample.problem, sample.problem.M, sample.channels(),
                                          sample.x.data(), weights, y.data(), threads);
  REQUIRE(valid);
  return {y.data(), y.data() + y.size()};
}

void check_both_orders(const Sample& sample, const kernels::HostThreads& threads, size_t y_offset = 0) {
  const std::vector<int8_t> expected = sample.expected();
  INFO(kernels::host_variant(), " ", sample.problem.M, " x ", sample.problem.K, " x ", sample.problem.N,
       ", rows ", sample.row_stride, " apart, float32 ", sample.problem.float_output);
  REQUIRE(computed(sample, {nullptr, sample.weights.data(), sample.row_stride}, threads, y_offset) ==
          expected);
  if (!kernels::host_packs_weights()) return;
  const kernels::HostPackedWeights weights = packed(sample);
  REQUIRE(computed(sample, {&weights, nullptr, 0}, threads, y_offset) == expected);
}

}  // namespace

TEST_CASE("host kernel: every remainder of rows, columns and depth") {
  constexpr std::array<int64_t, 11> kRows{1, 2, 3, 5, 6, 7, 11, 12, 13, 24, 25};
  constexpr std::array<int64_t, 19> kColumns{1,  2,  3,  4,  5,  7,  8,  9,  15, 16,
                                             17, 31, 32, 33, 63, 64, 65, 97, 130};
  constexpr std::array<int64_t, 18> kDepths{1,  2,  3,  4,  5,  15,  16,  17,  31,
                                            32, 33, 63, 64, 65, 127, 255, 256, 257};
  for (const std::string& variant : kernels::host_variants()) {
    const Forced forced(variant);
    uint64_t seed = 0;
    for (const int64_t K : kDepths) {
      for (const int64_t N : kColumns) {
        // A third of the rows each: all of them meet all the others in the course of the depths.
        for (size_t i = seed % 3; i < kRows.size(); i += 3, ++seed) {
          Options options;
          options.has_bias = seed % 2 == 0;
          options.relu = seed / 2 % 2 == 0;
          options.float_output = seed / 4 % 3 == 0;
          options.offset = seed % 7;
          options.row_stride = seed % 5 == 0 ? K + 1 + static_cast<int64_t>(seed % 70) : K;
          options.seed = seed;
          check_both_orders(Sample({kRows[i], K, N}, options), kernels::HostThreads{},
                            options.float_output ? 0 : seed % 5);
        }
      }
    }
  }
}

TEST_CASE("host kernel: several threads") {
  for (const std::string& variant : kernels::host_variants()) {
    const Forced forced(variant);
    for (const Sizes& sizes : {Sizes{1, 1024, 700}, Sizes{37, 600, 300}, Sizes{300, 300, 90}}) {
      check_both_orders(Sample(sizes, {}), host_threads(4));
    }
  }
}

TEST_CASE("host kernel: any number of workers, in any order") {
  // In turn, forwards or backwards: the first computes what it can of the others' shares.
  const auto one_by_one = [](int64_t count, bool backwards) {
    return kernels::HostThreads{count, [backwards](int64_t items, int64_t, const auto& work) {
                                  for (int64_t i = 0; i < items; ++i) {
                                    const int64_t item = backwards ? items - 1 - i : i;
                                    work(item, item + 1);
                                  }
                                }};
  };
  for (const std::string& variant : kernels::host_variants()) {
    const Forced forced(variant);
    // More workers than groups of columns, more blocks of rows than workers, and numbers that divide nothing.
    for (const Sizes& sizes : {Sizes{200, 600, 70}, Sizes{1100, 1000, 6}, Sizes{40, 1000, 650}}) {
      for (const int64_t count : {2, 7, 61}) {
        check_both_orders(Sample(sizes, {}), one_by_one(count, false));
        check_both_orders(Sample(sizes, {}), one_by_one(count, true));
        check_both_orders(Sample(sizes, {}), host_threads(count));
      }
    }
  }
}

TEST_CASE("host kernel: no more threads are woken than there is work for") {
  const auto parts = [](const Sizes& sizes) {
    int64_t most = 1;
    const kernels::HostThreads threads{16, [&most](int64_t items, int64_t grain, const auto& work) {
                                         most = std::max(most, (items + grain - 1) / grain);
                                         work(0, items);
                                       }};
    check_both_orders(Sample(sizes, {}), threads);
    return most;
  };
  CHECK(parts({1, 4, 8000}) == 1);
  CHECK(parts({1, 256, 4096}) == 9);
  CHECK(parts({64, 600, 2048}) == 16);
}

TEST_CASE("host kernel: the longest rows and the largest sums") {
  for (const std::string& variant : kernels::host_variants()) {
    const Forced forced(variant);
    Sample sample({2, kernels::kMaxK, 5}, {});
    std::memset(sample.x.data(), 0x80, sample.x.size());
    std::memset(sample.weights.data(), 0x80, sample.weights.size());
    sample.weight_sums.assign(5, static_cast<int32_t>(-128 * kernels::kMaxK));
    sample.problem.quantization.input_zero_point = 127;
    check_both_orders(sample, kernels::HostThreads{});
  }
}

TEST_CASE("host kernel: results beyond every range, and scales that are no numbers") {
  for (const std::string& variant : kernels::host_variants()) {
    const Forced forced(variant);
    for (const float scale : {1e30F, 1e-44F, std::numeric_limits<float>::max()}) {
      for (const bool float_output : {false, true}) {
        Options options;
        options.float_output = float_output;
        Sample sample({3, 40, 37}, options);
        for (float& each : sample.weight_scales) each = scale;
        sample.problem.quantization.inverse_output_scale = 1e30F;
        check_both_orders(sample, kernels::HostThreads{});
      }
    }
    for (const float scale :
         {0.0F, -1.0F, std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
      for (const size_t place : {size_t{0}, size_t{36}}) {
        Sample sample({3, 40, 37}, {});
        sample.weight_scales[place] = scale;
        ExactBytes y(sample.y_bytes());
        CHECK_FALSE(kernels::host_linear(sample.problem, 3, sample.channels(), sample.x.data(),
                                         {nullptr, sample.weights.data(), 40}, y.data(), host_threads(2)));
      }
    }
  }
}

TEST_CASE("host kernel: weights packed from transposed memory, in parts") {
  for (const Sizes& sizes : {Sizes{1, 1, 1}, Sizes{1, 67, 33}, Sizes{1, 130, 100}}) {
    const Sample sample({2, sizes.K, sizes.N}, {});
    const kernels::HostPackedWeights whole = packed(sample);
    ExactBytes transposed(sample.weights.size());
    for (int64_t n = 0; n < sizes.N; ++n) {
      for (int64_t k = 0; k < sizes.K; ++k)
        transposed.data()[k * sizes.N + n] = sample.weights.data()[n * sizes.K + k];
    }
    kernels::HostPackedWeights parts(sizes.N, sizes.K);
    CHECK(failure_in_threads(static_cast<int>(parts.panel_count()), [&](int panel) {
            parts.pack(transposed.data(), 1, sizes.N, panel, panel + 1);
          }) == "");
    const auto bytes = static_cast<size_t>(whole.panel_count() * whole.panel_bytes());
    CHECK(std::memcmp(parts.panels(), whole.panels(), bytes) == 0);
    CHECK(std::memcmp(parts.sums(), whole.sums(), static_cast<size_t>(sizes.N) * sizeof(int32_t)) == 0);
  }
}

TEST_CASE("requantize: every value") {
  Numbers numbers(3);
  for (int i = 0; i < 200; ++i) {
    const float scale = std::ldexp(numbers.between(1.0F, 2.0F), static_cast<int>(numbers.below(60)) - 30);
    const kernels::Quantization quantization{numbers.between(0.01F, 1.0F), numbers.byte(), scale,
                                             numbers.byte()};
    const std::array<int8_t, 256> table = kernels::requantize_table(quantization);
    for (int32_t x = -128; x < 128; ++x) {
      const float y = static_cast<float>(x - quantization.input_zero_point) * quantization.input_scale;
      const float rounded = std::nearbyint(y * scale) + static_cast<float>(quantization.output_zero_point);
      REQUIRE(table[static_cast<size_t>(x + 128)] ==
              static_cast<int8_t>(std::min(std::max(rounded, -128.0F), 127.0F)));
    }
  }
}

}  // namespace q8ta::test
