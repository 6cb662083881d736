#include "benchmark/roofs.h"

#include <algorithm>
#include <array>
#include <span>

#include "kernels/kernel_family.h"
#include "kernels/layout.h"
#include "vulkan/device.h"
#include "vulkan/error.h"

namespace q8ta::benchmark {
namespace {

using vulkan::BufferRange;
using vulkan::Recorder;

constexpr size_t kVectorBytes = 16;

class Roof final : public Contestant {
 public:
  Roof(vulkan::Device& device, size_t result_bytes) : Contestant(device, result_bytes) {}
  using Contestant::add_op;
  using Contestant::copy_now;
  using Contestant::empty_buffer;
  using Contestant::output;
  using Contestant::set_checked_op;

  /// A buffer that the words fill again and again.
  BufferRange filled_buffer(const HostBytes& words, size_t bytes) {
    const BufferRange whole = empty_buffer(bytes);
    const BufferRange source = buffer_of(words.data, words.bytes);
    for (size_t first = 0; first < bytes; first += words.bytes) {
      const size_t count = std::min(words.bytes, bytes - first);
      copy_now(source.subrange(0, count), whole.subrange(first, count));
    }
    return whole;
  }
};

/// Records a dispatch of a shader of the roofs, all of which take two words of arguments.
void dispatch(Recorder& recorder, std::string_view shader, std::initializer_list<uint32_t> constants,
              std::initializer_list<vulkan::Binding> bindings, const std::array<uint32_t, 2>& arguments,
              size_t argument_count, uint32_t workgroups, const char* kernel) {
  vulkan::PipelineSpec spec;
  spec.shader = shader;
  spec.set_constants(constants);
  spec.bindings = static_cast<uint32_t>(bindings.size());
  spec.push_constant_bytes = static_cast<uint32_t>(argument_count * sizeof(uint32_t));
  recorder.dispatch(recorder.device().pipelines().get(spec), bindings,
                    std::as_bytes(std::span(arguments).first(argument_count)), workgroups,
                    {"benchmark", kernel});
}

size_t workgroups_for(size_t bytes, const MemoryAccess& access) {
  return static_cast<size_t>(kernels::ceil_div(
      static_cast<int64_t>(bytes), static_cast<int64_t>(kVectorBytes * access.threads * access.loads)));
}

void check_whole_vectors(size_t bytes) {
  if (bytes == 0 || bytes % kVectorBytes != 0)
    throw vulkan::Error("expected a positive multiple of 16 bytes");
}

}  // namespace

std::unique_ptr<Contestant> make_empty_dispatch(vulkan::Device& device) {
  constexpr size_t kInvocations = 32;
  auto roof = std::make_unique<Roof>(device, kInvocations * sizeof(uint32_t));
  const auto record = [&](Recorder& recorder, uint32_t store) {
    dispatch(recorder, "benchmark.empty", {}, {{roof->output(), true}}, {store}, 1, 1, "roof/empty");
  };
  roof->set_checked_op([&](Recorder& recorder) { record(recorder, 1); });
  roof->add_op([&](Recorder& recorder) { record(recorder, 0); });
  return roof;
}

std::unique_ptr<Contestant> make_read(vulkan::Device& device, const HostBytes& words, size_t total_bytes,
                                      size_t window_bytes, const MemoryAccess& access) {
  check_whole_vectors(words.bytes);
  check_whole_vectors(window_bytes);
  const auto workgroups = static_cast<uint32_t>(workgroups_for(window_bytes, access));
  auto roof = std::make_unique<Roof>(device, size_t{workgroups} * access.threads * sizeof(uint32_t));
  const VkDeviceSize stride = vulkan::round_up(window_bytes, device.binding_alignment());
  const size_t windows = std::max<size_t>(total_bytes / stride, 1);
  const BufferRange whole = roof->filled_buffer(words, windows * stride);
  const auto record = [&](Recorder& recorder, size_t window, uint32_t store) {
    dispatch(recorder, "benchmark.memory", {access.threads, access.loads, 0},
             {{whole.subrange(window * stride, window_bytes)}, {roof->output(), true}},
             {static_cast<uint32_t>(window_bytes / kVectorBytes), store}, 2, workgroups, "roof/read");
  };
  roof->set_checked_op([&](Recorder& recorder) { record(recorder, 0, 1); });
  for (size_t window = 0; window < windows; ++window) {
    roof->add_op([&](Recorder& recorder) { record(recorder, window, 0); });
  }
  return roof;
}

std::unique_ptr<Contestant> make_copy(vulkan::Device& device, const HostBytes& words, size_t bytes,
                                      const MemoryAccess* access) {
  check_whole_vectors(words.bytes);
  check_whole_vectors(bytes);
  auto roof = std::make_unique<Roof>(device, bytes);
  const BufferRange source = roof->filled_buffer(words, bytes);
  roof->add_op([&](Recorder& recorder) {
    if (access == nullptr) {
      recorder.copy(source, roof->output(), {"benchmark", "roof/copy"});
      return;
    }
    dispatch(recorder, "benchmark.memory", {access->threads, access->loads, 1},
             {{source}, {roof->output(), true}}, {static_cast<uint32_t>(bytes / kVectorBytes), 0}, 2,
             static_cast<uint32_t>(workgroups_for(bytes, *access)), "roof/copy_shader");
  });
  return roof;
}

std::unique_ptr<Contestant> make_dot4(const vulkan::Selection& selection, uint32_t workgroups,
                                      uint32_t turns) {
  constexpr size_t kThreads = 256;
  vulkan::Device& device = *selection.device;
  const bool int_dot = kernels::choose_family(device.info(), selection.disabled).int_dot;
  auto roof = std::make_unique<Roof>(device, workgroups * kThreads * sizeof(uint32_t));
  const auto record = [&](Recorder& recorder, uint32_t turns_now, uint32_t store) {
    dispatch(recorder, int_dot ? "benchmark.dot4.int_dot" : "benchmark.dot4.plain", {},
             {{roof->output(), true}}, {turns_now, store}, 2, workgroups,
             int_dot ? "roof/dot4/int_dot" : "roof/dot4/plain");
  };
  roof->set_checked_op([&](Recorder& recorder) { record(recorder, 1, 1); });
  roof->add_op([&](Recorder& recorder) { record(recorder, turns, 0); });
  return roof;
}

std::unique_ptr<Contestant> make_cooperative_matrix(const vulkan::Selection& selection,
                                                    const vulkan::CooperativeMatrixShape& shape,
                                                    uint32_t workgroups, uint32_t turns) {
  constexpr uint32_t kSubgroups = 4;
  vulkan::Device& device = *selection.device;
  const vulkan::DeviceInfo& info = device.info();
  const bool has_shape = std::any_of(info.cooperative_matrix_int8.begin(), info.cooperative_matrix_int8.end(),
                                     [&](const vulkan::CooperativeMatrixShape& each) {
                                       return each.M == shape.M && each.N == shape.N && each.K == shape.K;
                                     });
  if (!has_shape || selection.disabled.cooperative_matrix) {
    throw vulkan::Error("the device has no such int8 cooperative matrix, or they are disabled");
  }
  if (shape.K % kVectorBytes != 0) {
    throw vulkan::Error("fragments are loaded from rows of 16-byte chunks, which this shape is not made of");
  }
  vulkan::PipelineSpec spec;
  spec.shader = "benchmark.cooperative_matrix";
  spec.set_constants({kSubgroups * info.subgroup_size, shape.M, shape.N, shape.K});
  spec.bindings = 1;
  spec.push_constant_bytes = 2 * sizeof(uint32_t);
  spec.requires_subgroup_size = true;
  auto roof =
      std::make_unique<Roof>(device, size_t{workgroups} * kSubgroups * shape.M * shape.N * sizeof(int32_t));
  const auto record = [&](Recorder& recorder, uint32_t turns_now, uint32_t store) {
    const std::array<uint32_t, 2> arguments{turns_now, store};
    recorder.dispatch(device.pipelines().get(spec), {{roof->output(), true}},
                      std::as_bytes(std::span(arguments)), workgroups,
                      {"benchmark", "roof/cooperative_matrix"});
  };
  roof->set_checked_op([&](Recorder& recorder) { record(recorder, 1, 1); });
  roof->add_op([&](Recorder& recorder) { record(recorder, turns, 0); });
  return roof;
}

}  // namespace q8ta::benchmark
