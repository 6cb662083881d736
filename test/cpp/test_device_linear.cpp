// linear on the device, by both ways: a call that is waited for, and the queue of the vk device.
#include <doctest/doctest.h>

#include <array>
#include <cstring>
#include <vector>

#include "device.h"
#include "kernels/layout.h"
#include "kernels/linear.h"
#include "kernels/linear_choice.h"
#include "kernels/self_test.h"
#include "samples.h"
#include "threads.h"
#include "vulkan/context.h"
#include "vulkan/device_stream.h"
#include "vulkan/error.h"
#include "vulkan/instance.h"

namespace q8ta::test {
namespace {

std::vector<int8_t> queued_linear(vulkan::Device& device, const Sample& sample, const OnDevice& on_device) {
  const PoolMemory x(device, x_memory(sample));
  const PoolMemory y(device, sample.y_bytes());
  upload_x(device, sample, x);
  queue_linear(device, sample, on_device, x, y);
  return download(device, y, sample.y_bytes());
}

void check_both_ways(const Sample& sample) {
  INFO(sample.problem.M, " x ", sample.problem.K, " x ", sample.problem.N);
  const OnDevice on_device(device(), sample);
  const std::vector<int8_t> expected = sample.expected();
  CHECK(run_linear(device(), sample, on_device) == expected);
  CHECK(queued_linear(device(), sample, on_device) == expected);
}

}  // namespace

TEST_CASE("device: remainders of rows, columns and depth") {
  uint64_t seed = 0;
  for (const int64_t M : {1, 3, 9, 30}) {
    for (const int64_t N : {1, 6, 16, 67}) {
      for (const int64_t K : {1, 15, 16, 33, 130}) {
        Options options;
        options.has_bias = seed % 2 == 0;
        options.relu = seed % 3 == 0;
        options.float_output = seed % 4 == 0;
        options.offset = seed % 5;
        options.seed = seed++;
        check_both_ways(Sample({M, K, N}, options));
      }
    }
  }
}

TEST_CASE("device: inputs and outputs that are imported, and more than one submission") {
  check_both_ways(Sample({700, 400, 401}, {}));
  Options options;
  options.offset = 3;
  check_both_ways(Sample({700, 416, 404}, options));
  options.float_output = true;
  const Sample tall({20'000, 20, 300}, options);  // more y than is staged at a time
  CHECK(run_linear(device(), tall, OnDevice(device(), tall)) == tall.expected());
}

TEST_CASE("device: weights that are padded already are copied as they are") {
  Options options;
  options.row_stride = kernels::padded_row_bytes(40);
  const Sample sample({5, 40, 300}, options);
  ExactBytes padded(static_cast<size_t>(300 * options.row_stride));
  for (size_t n = 0; n < 300; ++n) {
    std::memcpy(padded.data() + n * 48, sample.weights.data() + n * 48, 40);
  }
  const kernels::DeviceChannels channels(device(), sample.channels(), 300);
  const kernels::DeviceWeights weights(device(), padded.data(), 300, 40, /*packed=*/true);
  const PoolMemory x(device(), x_memory(sample));
  const PoolMemory y(device(), sample.y_bytes());
  ExactBytes result(sample.y_bytes());
  kernels::run_linear(device(), family_of(device()), sample.problem, 5, sample.x.data(), weights, channels,
                      [&]() -> void* { return result.data(); });
  CHECK(std::vector<int8_t>(result.data(), result.data() + result.size()) == sample.expected());
  CHECK(channels.same_as(sample.channels()));
  Sample other({5, 40, 300}, options);
  other.bias[299] += 1.0F;
  CHECK_FALSE(channels.same_as(other.channels()));
}

TEST_CASE("device: the self-test finds the plan of a few problems right") {
  for (const Sizes& sizes : {Sizes{1, 100, 50}, Sizes{2, 64, 33}, Sizes{40, 70, 66}}) {
    kernels::LinearProblem problem;
    problem.M = static_cast<uint32_t>(sizes.M);
    problem.K = static_cast<uint32_t>(sizes.K);
    problem.N = static_cast<uint32_t>(sizes.N);
    const kernels::KernelFamily family = family_of(device());
    const auto plan = kernels::plan_linear(device().info(), family, problem);
    CHECK(kernels::find_difference(device(), plan, problem) == "");
    CHECK(kernels::LinearChoices::of(device()).get(family, problem).pipeline != nullptr);
  }
  CHECK(kernels::LinearChoices::of(device()).switched_off().empty());
}

TEST_CASE("devices are opened, used and closed in several threads") {
  const vulkan::DeviceInfo info = device().info();
  const vulkan::Instance instance(device().validation());
  const VkPhysicalDevice physical_device = instance.physical_devices().at(info.index);
  const Sample sample({6, 50, 40}, {});
  const std::vector<int8_t> expected = sample.expected();
  const std::string failure = failure_in_threads(3, [&](int) {
    for (int i = 0; i < 2; ++i) {
      vulkan::Device own(instance, vulkan::query_device_info(physical_device, info.index));
      const OnDevice on_device(own, sample);
      require(run_linear(own, sample, on_device) == expected, "linear is wrong on a device of its own");
      require(queued_linear(own, sample, on_device) == expected,
              "queued linear is wrong on a device of its own");
    }
  });
  CHECK(failure == "");
}

TEST_CASE("what the device cannot do is an error, and the next call is right") {
  vulkan::PipelineSpec spec;
  spec.shader = "no such shader";
  CHECK_THROWS_AS(device().pipelines().get(spec), vulkan::Error);
  CHECK_THROWS_AS(vulkan::Buffer(device(), vulkan::MemoryUse::device_local, VkDeviceSize{1} << 50),
                  vulkan::OutOfMemory);
  check_both_ways(Sample({2, 17, 19}, {}));
}

}  // namespace q8ta::test
