#include "kernels/self_test.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <span>
#include <vector>

#include "kernels/host_gemm.h"
#include "kernels/layout.h"
#include "kernels/linear_dispatch.h"
#include "kernels/pack.h"
#include "vulkan/buffer.h"
#include "vulkan/trial.h"

namespace q8ta::kernels {
namespace {

using vulkan::Buffer;
using vulkan::MemoryUse;

/// Random numbers, the same in every run.
class Numbers {
 public:
  uint32_t next() {
    state_ = state_ * 6'364'136'223'846'793'005U + 1'442'695'040'888'963'407U;
    return static_cast<uint32_t>(state_ >> 32U);
  }
  float between(float low, float high) {
    return low + (high - low) * static_cast<float>(next() >> 8U) / 16'777'216.0F;
  }

 private:
  uint64_t state_ = 1;
};

/// int8 [rows, K] over the whole range, in rows of padded_row_bytes(K) that are zero behind K.
std::vector<int8_t> random_rows(Numbers& numbers, int64_t rows, int64_t K) {
  const int64_t row_bytes = padded_row_bytes(K);
  std::vector<int8_t> values(static_cast<size_t>(rows * row_bytes));
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t k = 0; k < K; ++k) {
      values[static_cast<size_t>(row * row_bytes + k)] = static_cast<int8_t>(numbers.next());
    }
  }
  return values;
}

/// A problem's inputs in host memory.
struct Inputs {
  LinearProblem problem;
  std::vector<int8_t> x;
  std::vector<int8_t> weights;
  std::vector<int32_t> weight_sums;
  std::vector<float> weight_scales;
  std::vector<float> bias;

  explicit Inputs(const LinearProblem& sizes) : problem(sizes) {
    Numbers numbers;
    const auto row_bytes = static_cast<size_t>(padded_row_bytes(problem.K));
    x = random_rows(numbers, problem.M, problem.K);
    weights = random_rows(numbers, problem.N, problem.K);
    problem.has_bias = true;
    problem.relu = false;
    problem.quantization = {0.5F, -3, 1.0F, 5};
    // Sums of products of such bytes are this large on average; then results are all over the int8 range.
    const float typical = 5461.0F * std::sqrt(static_cast<float>(problem.K));
    for (size_t n = 0; n < problem.N; ++n) {
      const int8_t* row = weights.data() + n * row_bytes;
      int32_t sum = 0;
      for (uint32_t k = 0; k < problem.K; ++k) sum += row[k];
      weight_sums.push_back(sum);
      weight_scales.push_back(numbers.between(60.0F, 120.0F) / typical);
      bias.push_back(numbers.between(-20.0F, 20.0F));
    }
  }

  HostChannels channels() const { return {weight_sums.data(), weight_scales.data(), bias.data()}; }
  size_t element_bytes() const { return problem.float_output ? sizeof(float) : 1; }
};

std::vector<std::byte> compute_on_host(const Inputs& inputs) {
  const LinearProblem& problem = inputs.problem;
  std::vector<int8_t> dense_x;
  for (size_t m = 0; m < problem.M; ++m) {
    const auto row = inputs.x.begin() + static_cast<std::ptrdiff_t>(m) * padded_row_bytes(problem.K);
    dense_x.insert(dense_x.end(), row, row + problem.K);
  }
  std::vector<std::byte> y(size_t{problem.M} * problem.N * inputs.element_bytes());
  const HostThreads alone{1, [](int64_t items, int64_t /*grain*/, const auto& work) { work(0, items); }};
  host_linear(problem, problem.M, inputs.channels(), dense_x.data(),
              {nullptr, inputs.weights.data(), padded_row_bytes(problem.K)}, y.data(), alone);
  return y;
}

template <typename T>
Buffer upload(vulkan::Device& device, const std::vector<T>& values) {
  const size_t bytes = values.size() * sizeof(T);
  Buffer buffer(device, MemoryUse::upload, vulkan::round_up(bytes, 4));
  std::memcpy(buffer.mapped(), values.data(), bytes);
  buffer.flush(0, buffer.size());
  return buffer;
}

/// The weights in the problem's order, of which `rows` are PackOrder::padded_rows.
vulkan::BufferRange record_reorder(vulkan::Recorder& recorder, const LinearProblem& problem,
                                   const vulkan::BufferRange& rows) {
  if (problem.weight_order == PackOrder::padded_rows) return rows;
  const Matrices matrix{1, problem.N, padded_row_bytes(problem.K)};
  const vulkan::BufferRange packed =
      recorder.scratch(static_cast<VkDeviceSize>(4 * packed_words(matrix, problem.weight_order)));
  record_pack(recorder, {rows, 0}, matrix, problem.weight_order, packed, "self-test");
  return packed;
}

/// y [M, N], row-major. The kernels write int8 in rows of whole words.
std::vector<std::byte> compute_on_device(vulkan::Device& device, const LinearPlan& plan,
                                         const Inputs& inputs) {
  const LinearProblem& problem = inputs.problem;
  const size_t row_bytes = problem.N * inputs.element_bytes();
  const size_t stride = vulkan::round_up(row_bytes, 4);
  const Buffer x = upload(device, inputs.x);
  const Buffer weights = upload(device, inputs.weights);
  const Buffer weight_sums = upload(device, inputs.weight_sums);
  const Buffer weight_scales = upload(device, inputs.weight_scales);
  const Buffer bias = upload(device, inputs.bias);
  const Buffer y(device, MemoryUse::download, problem.M * stride);
  std::memset(y.mapped(), 0x5a, y.size());  // what is not written is not right by chance
  y.flush(0, y.size());
  vulkan::Trial trial(device);
  record_linear_dispatch(trial, make_linear_kernel(device, plan), problem,
                         {x.range(),
                          record_reorder(trial, problem, weights.range()),
                          {weight_sums.range(), weight_scales.range(), bias.range()},
                          y.range()});
  trial.run();
  y.invalidate(0, y.size());
  std::vector<std::byte> result;
  for (size_t m = 0; m < problem.M; ++m) {
    const std::byte* row = y.mapped() + m * stride;
    result.insert(result.end(), row, row + row_bytes);
  }
  return result;
}

std::string value_at(const std::vector<std::byte>& y, size_t index, bool is_float) {
  if (!is_float) return std::to_string(static_cast<int>(static_cast<int8_t>(y[index])));
  float value = 0;
  std::memcpy(&value, y.data() + index * sizeof(float), sizeof(value));
  return std::to_string(value);
}

}  // namespace

std::string find_difference(vulkan::Device& device, const LinearPlan& plan, const LinearProblem& problem) {
  const Inputs inputs(problem);
  const std::vector<std::byte> right = compute_on_host(inputs);
  const std::vector<std::byte> got = compute_on_device(device, plan, inputs);
  const size_t element_bytes = inputs.element_bytes();
  const size_t count = right.size() / element_bytes;
  size_t wrong = 0;
  size_t first = 0;
  for (size_t i = count; i-- > 0;) {
    if (std::memcmp(right.data() + i * element_bytes, got.data() + i * element_bytes, element_bytes) == 0) {
      continue;
    }
    ++wrong;
    first = i;
  }
  if (wrong == 0) return "";
  return std::to_string(wrong) + " of " + std::to_string(count) + " results are wrong, at row " +
         std::to_string(first / problem.N) + ", column " + std::to_string(first % problem.N) + " " +
         value_at(got, first, problem.float_output) + " instead of " +
         value_at(right, first, problem.float_output);
}

std::string find_difference_quickly(vulkan::Device& device, const LinearPlan& plan,
                                    const LinearProblem& problem) {
  // The same specialization constants must remain right for what is left of K, so it loses whole turns of
  // every kernel's loop.
  constexpr uint32_t kTurns = 8192;
  LinearPlan part_plan = plan;
  LinearProblem part = problem;
  part.M = std::min(problem.M, plan.tile_m + (plan.whole_m > 1 ? plan.whole_m : 3));
  part.N = std::min(problem.N, plan.tile_n + (plan.whole_n > 1 ? plan.whole_n : 5));
  if (part.K > 2 * kTurns) part.K = part.K % kTurns + kTurns;
  part_plan.workgroups = static_cast<uint32_t>(ceil_div(part.M, plan.tile_m) * ceil_div(part.N, plan.tile_n));
  return find_difference(device, part_plan, part);
}

}  // namespace q8ta::kernels
