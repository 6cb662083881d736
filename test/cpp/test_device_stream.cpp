// The queue of the vk device: uploads, downloads, graphs, events and profiles.
#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "device.h"
#include "kernels/maximum.h"
#include "samples.h"
#include "threads.h"
#include "vulkan/device_stream.h"
#include "vulkan/error.h"
#include "vulkan/event.h"
#include "vulkan/graph.h"
#include "vulkan/profiler.h"
#include "vulkan/recorded_graph.h"
#include "vulkan/submission_policy.h"

namespace q8ta::test {
namespace {

struct Layer {
  explicit Layer(const Sample& sample)
      : sample(sample),
        on_device(device(), sample),
        x(device(), x_memory(sample)),
        y(device(), sample.y_bytes()) {}

  void queue() const { queue_linear(device(), sample, on_device, x, y); }
  std::vector<int8_t> result() const { return download(device(), y, sample.y_bytes()); }

  const Sample& sample;
  OnDevice on_device;
  PoolMemory x, y;
};

constexpr vulkan::DispatchLabel kHalfOfMost{"test", "copy", 1U << 17U, 1U << 17U, 1};

/// Records a small copy that is said to be other work.
void copy_as(vulkan::Recorder& recorder, const PoolMemory& memory, const vulkan::DispatchLabel& label) {
  recorder.copy(memory.range().subrange(0, 16), memory.range().subrange(16, 16), label);
}

// So many are as much as a submission holds.
constexpr int kMostLargeCopies = 24;
constexpr size_t kLargeCopy = size_t{44} << 20;
static_assert(2 * kLargeCopy * kMostLargeCopies * vulkan::SubmissionPolicy::kMultipliesPerByte >=
                  vulkan::SubmissionPolicy::kMostWork &&
              2 * kLargeCopy * (kMostLargeCopies - 1) * vulkan::SubmissionPolicy::kMultipliesPerByte <
                  vulkan::SubmissionPolicy::kMostWork);

/// Copies one half of the memory to the other.
struct LargeCopy {
  const PoolMemory& memory;

  void operator()(vulkan::Recorder& recorder) const {
    recorder.copy(memory.range().subrange(0, kLargeCopy), memory.range().subrange(kLargeCopy, kLargeCopy),
                  {"test", "copy"});
  }
};

/// Captures the work so many times.
template <typename Work>
size_t submissions_of_replay(int times, const Work& work) {
  const std::shared_ptr<vulkan::Capture> capture = vulkan::Capture::begin(device());
  for (int i = 0; i < times; ++i) capture->record(work);
  capture->end();
  const std::weak_ptr<vulkan::RecordedGraph> graph = device().stream().add_graph(*capture);
  device().stream().replay(graph);
  device().stream().synchronize();
  const size_t count = graph.lock()->submissions().size();
  device().stream().remove_graph(graph);
  return count;
}

/// Whether it does within ten seconds.
template <typename Condition>
bool becomes_true(Condition condition) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

}  // namespace

TEST_CASE("stream: uploads and downloads of any size keep their order") {
  const PoolMemory memory(device(), size_t{40} << 20);
  for (const size_t bytes : {size_t{1}, size_t{3}, size_t{4096}, (size_t{16} << 20) + 5, size_t{40} << 20}) {
    ExactBytes data(bytes, 1);
    std::iota(data.data(), data.data() + bytes, static_cast<int8_t>(bytes));
    device().stream().upload(data.data(), bytes, memory.range());
    std::vector<int8_t> sent(data.data(), data.data() + bytes);
    std::fill_n(data.data(), bytes, int8_t{0});  // free again as soon as upload returns
    CHECK(download(device(), memory, bytes) == sent);
  }
}

TEST_CASE("stream: more ops than fit into one submission") {
  const Sample sample({3, 20, 24}, {});
  const Layer layer(sample);
  upload_x(device(), sample, layer.x);
  for (int i = 0; i < 700; ++i) layer.queue();
  CHECK(layer.result() == sample.expected());
  device().stream().synchronize();
  CHECK(device().stream().idle());
}

// A dispatch says by its label how much work it is: so a copy can stand for one that takes a slow GPU a
// second.
TEST_CASE("stream: much work is submitted before more is gathered, though the GPU is busy") {
  const Sample sample({64, 1024, 1024}, {});
  const Layer layer(sample);
  upload_x(device(), sample, layer.x);
  const PoolMemory memory(device(), 32);
  device().stream().synchronize();
  layer.queue();  // on a software device it is still running when the copies are queued
  for (int i = 0; i < 2; ++i) {
    device().stream().record([&](vulkan::Recorder& recorder) { copy_as(recorder, memory, kHalfOfMost); });
  }
  CHECK(becomes_true([] { return device().stream().idle(); }));
  CHECK(layer.result() == sample.expected());
}

TEST_CASE("stream: large copies are submitted before more are gathered, though the GPU is busy") {
  const Sample sample({64, 1024, 1024}, {});
  const Layer layer(sample);
  upload_x(device(), sample, layer.x);
  const PoolMemory memory(device(), 2 * kLargeCopy);
  device().stream().synchronize();
  layer.queue();
  // So few that they are not submitted by their number.
  for (int i = 0; i < kMostLargeCopies; ++i) device().stream().record(LargeCopy{memory});
  CHECK(becomes_true([] { return device().stream().idle(); }));
  CHECK(layer.result() == sample.expected());
}

TEST_CASE("graph: a replay of much work is several submissions") {
  const PoolMemory memory(device(), 32);
  const auto submissions = [&](int copies, const vulkan::DispatchLabel& label) {
    return submissions_of_replay(copies,
                                 [&](vulkan::Recorder& recorder) { copy_as(recorder, memory, label); });
  };
  CHECK(2 * kHalfOfMost.multiplies() == vulkan::SubmissionPolicy::kMostWork);
  CHECK(submissions(1, kHalfOfMost) == 1);
  CHECK(submissions(2, kHalfOfMost) == 1);
  CHECK(submissions(5, kHalfOfMost) == 3);
  CHECK(submissions(100, {"test", "copy", 8, 1, 1}) == 1);
}

TEST_CASE("graph: a replay of large copies is several submissions") {
  const PoolMemory memory(device(), 2 * kLargeCopy);
  CHECK(submissions_of_replay(kMostLargeCopies, LargeCopy{memory}) == 1);
  CHECK(submissions_of_replay(2 * kMostLargeCopies + 1, LargeCopy{memory}) == 3);
}

TEST_CASE("profile: a maximum is as much work as it has elements") {
  constexpr uint32_t kElements = 1U << 20U;
  const PoolMemory x(device(), size_t{4} * kElements);
  const PoolMemory y(device(), 4);
  kernels::Maximum maximum;
  maximum.count = 1;
  maximum.reduced = kElements;
  maximum.dimensions = 1;
  maximum.sizes[0] = kElements;
  maximum.x_strides[0] = 1;
  vulkan::Profiler::instance().start();
  device().stream().record([&](vulkan::Recorder& recorder) {
    kernels::record_maximum(recorder, /*floats=*/true, maximum, x.range(), y.range(), "test");
  });
  device().stream().synchronize();
  const std::vector<vulkan::DispatchRecord> records = vulkan::Profiler::instance().stop();
  REQUIRE(records.size() == 1);
  CHECK(records.front().label.multiplies() == kElements);
}

TEST_CASE("graph: replays what was captured, with what its inputs hold then") {
  const Sample first({5, 24, 32}, {});
  Options options;
  options.seed = 2;
  const Sample second({5, 24, 32}, options);
  const Layer layer(first);
  upload_x(device(), first, layer.x);
  layer.queue();  // pipelines are made before the capture
  vulkan::Graph graph;
  CHECK_THROWS_AS(graph.replay(), vulkan::Error);
  graph.begin_capture(device());
  CHECK_THROWS_AS(device().stream().synchronize(), vulkan::Error);
  layer.queue();
  graph.end_capture();
  for (int i = 0; i < 20; ++i) {
    Sample mixed({5, 24, 32}, {});
    std::copy_n((i % 2 == 0 ? first : second).x.data(), mixed.x.size(), mixed.x.data());
    upload_x(device(), mixed, layer.x);
    CHECK(graph.replay()->size() >= 1);
    REQUIRE(layer.result() == mixed.expected());
  }
  graph.reset();
  CHECK_THROWS_AS(graph.replay(), vulkan::Error);
  graph.begin_capture(device());
  graph.give_up_capture();
  CHECK(vulkan::Capture::of_this_thread() == nullptr);
}

TEST_CASE("graph: a capture whose thread has ended takes nothing with it") {
  const uint64_t before = device().memory().statistics().allocated_bytes.current;
  {
    vulkan::Graph graph;
    CHECK(failure_in_threads(1, [&](int) {
            graph.begin_capture(device());
            const PoolMemory memory(device(), 1000);
          }) == "");
    CHECK_THROWS_AS(graph.end_capture(), vulkan::Error);
  }
  CHECK_FALSE(vulkan::Capture::any());
  CHECK(device().memory().statistics().allocated_bytes.current == before);
}

TEST_CASE("events: passed in the end, in order, with times") {
  const Sample sample({30, 60, 64}, {});
  const Layer layer(sample);
  upload_x(device(), sample, layer.x);
  vulkan::Event begin(device(), /*timed=*/true);
  vulkan::Event end(device(), /*timed=*/true);
  CHECK(device().stream().passed(begin));  // nowhere yet
  device().stream().record_event(begin);
  for (int i = 0; i < 20; ++i) layer.queue();
  device().stream().record_event(end);
  device().stream().wait_for(end);
  CHECK(device().stream().passed(begin));
  CHECK(device().stream().passed(end));
  CHECK(device().stream().milliseconds_between(begin, end) >= 0);
  CHECK(layer.result() == sample.expected());
}

TEST_CASE("profile: one record a dispatch") {
  const Sample sample({2, 20, 24}, {});
  const Layer layer(sample);
  upload_x(device(), sample, layer.x);
  layer.queue();
  device().stream().synchronize();
  auto& profiler = vulkan::Profiler::instance();
  profiler.start();
  layer.queue();
  layer.queue();
  device().stream().synchronize();
  const std::vector<vulkan::DispatchRecord> records = profiler.stop();
  const auto linears =
      std::count_if(records.begin(), records.end(), [](const vulkan::DispatchRecord& record) {
        return std::string(record.label.kernel).starts_with("linear_") && record.gpu_us.has_value();
      });
  CHECK(linears == 2);
}

}  // namespace q8ta::test
