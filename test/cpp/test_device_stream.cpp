// The queue of the vk device: uploads, downloads, graphs, events and profiles.
#include <doctest/doctest.h>

#include <algorithm>
#include <numeric>
#include <string>
#include <vector>

#include "device.h"
#include "samples.h"
#include "threads.h"
#include "vulkan/device_stream.h"
#include "vulkan/error.h"
#include "vulkan/event.h"
#include "vulkan/graph.h"
#include "vulkan/profiler.h"

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
  const uint64_t before = device().memory().statistics().allocated_bytes;
  {
    vulkan::Graph graph;
    CHECK(failure_in_threads(1, [&](int) {
            graph.begin_capture(device());
            const PoolMemory memory(device(), 1000);
          }) == "");
    CHECK_THROWS_AS(graph.end_capture(), vulkan::Error);
  }
  CHECK_FALSE(vulkan::Capture::any());
  CHECK(device().memory().statistics().allocated_bytes == before);
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
