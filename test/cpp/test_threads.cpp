// Everything at once: eight threads that compute, pack, cache, edit, capture, replay and clear.
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "device.h"
#include "kernels/host_gemm.h"
#include "kernels/host_weight_cache.h"
#include "kernels/linear.h"
#include "kernels/linear_candidates.h"
#include "kernels/linear_choice.h"
#include "kernels/pack_host_memory.h"
#include "kernels/weight_cache.h"
#include "samples.h"
#include "threads.h"
#include "vulkan/context.h"
#include "vulkan/device_stream.h"
#include "vulkan/event.h"
#include "vulkan/graph.h"
#include "vulkan/profiler.h"
#include "vulkan/selection.h"

namespace q8ta::test {
namespace {

/// A layer whose weights are edited while others compute: every version of its content is known beforehand.
struct EditedLayer {
  explicit EditedLayer(const Sizes& sizes) {
    for (uint64_t version = 0; version < 2; ++version) {
      Options options;
      options.seed = version + static_cast<uint64_t>(sizes.N);
      options.relu = version == 1;
      options.float_output = sizes.N % 2 == 1;
      samples.emplace_back(sizes, options);
      expected.push_back(samples.back().expected());
    }
  }

  const void* address() const { return samples.front().weights.data(); }  // as if all versions lay there
  kernels::WeightKey key(const vulkan::Device* where) const {
    const kernels::LinearProblem& problem = samples.front().problem;
    return {where, address(), problem.N, problem.K, problem.K, 1};
  }

  std::vector<Sample> samples;  // by version
  std::vector<std::vector<int8_t>> expected;
  std::atomic<int64_t> version{0};
};

class Stress {
 public:
  Stress() {
    for (const Sizes& sizes : {Sizes{1, 40, 24}, Sizes{3, 33, 20}, Sizes{9, 64, 37}, Sizes{24, 48, 40}}) {
      layers_.push_back(std::make_unique<EditedLayer>(sizes));
    }
  }

  /// One thread's part. Throws where a result is wrong.
  void run(int thread, int steps) {
    Numbers numbers(static_cast<uint64_t>(thread) + 100);
    for (int step = 0; step < steps; ++step) {
      EditedLayer& layer = *layers_[numbers.below(static_cast<uint32_t>(layers_.size()))];
      const uint32_t what = numbers.below(20);
      if (what < 5) {
        cached_linear(layer);
      } else if (what < 9) {
        host_linear(layer);
      } else if (what < 13) {
        queued_linear(layer);
      } else if (what < 15) {
        replayed_linear(layer);
      } else if (what < 16) {
        pack(numbers);
      } else if (what < 17) {
        time_events();
      } else if (what < 18) {
        layer.version.store(numbers.below(2));
      } else {
        disturb(layer, numbers);
      }
    }
  }

 private:
  /// As csrc/ops does it for CPU tensors.
  static void cached_linear(const EditedLayer& layer) {
    const auto selection = vulkan::current_selection();
    require(selection->device == &device(), "another device was selected");
    const auto version = static_cast<size_t>(layer.version.load());
    const Sample& sample = layer.samples[version];
    const kernels::WeightKey key = layer.key(&device());
    const kernels::ContentMark content{static_cast<int64_t>(version),
                                       kernels::sample_bytes(sample.weights.data(), sample.weights.size())};
    auto& cache = kernels::WeightCache::instance();
    std::optional<kernels::CachedWeights> cached = cache.find(key);
    if (!cached || cached->content != content || !cached->channels->same_as(sample.channels())) {
      const kernels::LinearProblem& problem = sample.problem;
      cached = kernels::CachedWeights{
          std::make_shared<const kernels::DeviceWeights>(device(), sample.weights.data(), problem.N,
                                                         problem.K, false),
          std::make_shared<const kernels::DeviceChannels>(device(), sample.channels(), problem.N), content,
          nullptr};
      cache.store(key, *cached);
    }
    ExactBytes y(sample.y_bytes());
    kernels::run_linear(device(), kernels::choose_family(device().info(), selection->disabled),
                        sample.problem, sample.problem.M, sample.x.data(), *cached->weights,
                        *cached->channels, [&]() -> void* { return y.data(); });
    require(std::equal(y.data(), y.data() + y.size(), layer.expected[version].data()), "a call is wrong");
  }

  static void host_linear(const EditedLayer& layer) {
    const auto version = static_cast<size_t>(layer.version.load());
    const Sample& sample = layer.samples[version];
    const kernels::ContentMark content{static_cast<int64_t>(version), 0};
    auto& cache = kernels::HostWeightCache::instance();
    kernels::CachedHostWeights cached = cache.count_rows(layer.key(nullptr), content, sample.problem.M);
    if (cached.packed == nullptr && cached.rows_seen > 8) {
      const auto packed = std::make_shared<kernels::HostPackedWeights>(sample.problem.N, sample.problem.K);
      packed->pack(sample.weights.data(), sample.row_stride, 1, 0, packed->panel_count());
      cached.packed = packed;
      cache.store(layer.key(nullptr), cached);
    }
    const kernels::HostPackedWeights* packed = kernels::host_packs_weights() ? cached.packed.get() : nullptr;
    ExactBytes y(sample.y_bytes());
    const bool valid =
        kernels::host_linear(sample.problem, sample.problem.M, sample.channels(), sample.x.data(),
                             {packed, sample.weights.data(), sample.row_stride}, y.data(), host_threads(2));
    require(valid, "a weight scale is invalid");
    require(std::equal(y.data(), y.data() + y.size(), layer.expected[version].data()), "the host is wrong");
  }

  static void queued_linear(const EditedLayer& layer) {
    const auto version = static_cast<size_t>(layer.version.load());
    const Sample& sample = layer.samples[version];
    const OnDevice on_device(device(), sample);
    const PoolMemory x(device(), x_memory(sample));
    const PoolMemory y(device(), sample.y_bytes());
    upload_x(device(), sample, x);
    queue_linear(device(), sample, on_device, x, y);
    require(download(device(), y, sample.y_bytes()) == layer.expected[version], "queued work is wrong");
  }

  static void replayed_linear(const EditedLayer& layer) {
    const auto version = static_cast<size_t>(layer.version.load());
    const Sample& sample = layer.samples[version];
    const OnDevice on_device(device(), sample);
    const PoolMemory x(device(), x_memory(sample));
    const PoolMemory y(device(), sample.y_bytes());
    upload_x(device(), sample, x);
    vulkan::Graph graph;
    graph.begin_capture(device());
    queue_linear(device(), sample, on_device, x, y);
    graph.end_capture();
    for (int i = 0; i < 2; ++i) graph.replay();
    require(download(device(), y, sample.y_bytes()) == layer.expected[version], "a replay is wrong");
    device().stream().synchronize();  // its weights are no block of the pool: they must not go before it ends
  }

  static void pack(Numbers& numbers) {
    const kernels::Matrices matrices{1 + numbers.below(3), 1 + numbers.below(9), 1 + numbers.below(20)};
    ExactBytes rows(static_cast<size_t>(matrices.bytes()));
    std::generate_n(rows.data(), rows.size(), [&] { return numbers.byte(); });
    constexpr kernels::Layout kLayout = kernels::Layout::packed_int8_4h4w;
    std::vector<int32_t> words(static_cast<size_t>(kernels::packed_words(matrices, kLayout)));
    kernels::run_pack(device(), matrices, kLayout, rows.data(), words.data());
    ExactBytes back(rows.size());
    kernels::host_unpack(matrices, kLayout, words.data(), back.data());
    require(std::equal(back.data(), back.data() + back.size(), rows.data()), "a packed matrix is wrong");
  }

  static void time_events() {
    vulkan::Event begin(device(), true);
    vulkan::Event end(device(), true);
    device().stream().record_event(begin);
    device().stream().record_event(end);
    while (!device().stream().passed(end)) std::this_thread::yield();
    device().stream().wait_for(begin);
    device().stream().milliseconds_between(begin, end);
  }

  /// What makes the others begin anew.
  void disturb(const EditedLayer& layer, Numbers& numbers) {
    switch (numbers.below(9)) {
      case 0:
        kernels::WeightCache::instance().clear();
        break;
      case 1:
        kernels::HostWeightCache::instance().clear();
        break;
      case 2:
        kernels::WeightCache::instance().forget(layer.address(), 1);
        kernels::HostWeightCache::instance().forget(layer.address(), 1);
        break;
      case 3:
        device().memory().empty_cache();
        device().memory().reset_peaks();
        break;
      case 4:
        vulkan::Profiler::instance().start();
        vulkan::Profiler::instance().stop();
        break;
      case 5: {
        const kernels::KernelFamily family = family_of(device());
        const kernels::LinearProblem& problem = layer.samples.front().problem;
        const auto plans = kernels::linear_candidates(device().info(), family, problem);
        auto& choices = kernels::LinearChoices::of(device());
        choices.prefer(family, problem, numbers.below(2) == 0 ? "" : kernels::variant_of(plans.front()));
        require(choices.switched_off().empty(), "something is switched off");
        break;
      }
      case 6: {
        // Not the portable one: packed weights that another thread is about to use mean nothing to it.
        std::vector<std::string> variants = kernels::host_variants();
        if (variants.size() > 1) variants.pop_back();
        kernels::force_host_variant(variants[numbers.below(static_cast<uint32_t>(variants.size()))]);
        break;
      }
      case 7: {
        vulkan::DeviceRequest request = *vulkan::current_request();
        request.disable =
            numbers.below(2) == 0 ? std::vector<std::string>{} : std::vector<std::string>{"int_dot"};
        vulkan::set_request(request);
        break;
      }
      default:
        vulkan::Context::synchronize_if_open();
        require(kernels::WeightCache::instance().bytes() < (1U << 30U), "the cache grows");
        require(kernels::HostWeightCache::instance().bytes() < (1U << 30U), "the host's cache grows");
        device().memory().statistics();
    }
  }

  std::vector<std::unique_ptr<EditedLayer>> layers_;
};

}  // namespace

/// Q8TA_TEST_STEPS makes it longer.
TEST_CASE("eight threads with shared weights that are edited, forgotten and packed again") {
  device();
  const auto request = vulkan::current_request();
  const char* steps = std::getenv("Q8TA_TEST_STEPS");
  Stress stress;
  const std::string failure = failure_in_threads(
      8, [&](int thread) { stress.run(thread, steps == nullptr ? 60 : std::atoi(steps)); });
  CHECK(failure == "");
  kernels::force_host_variant("");
  vulkan::set_request(request);
  device().stream().synchronize();
  CHECK_FALSE(vulkan::Capture::any());
}

}  // namespace q8ta::test
