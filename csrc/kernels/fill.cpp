#include "kernels/fill.h"

#include <cstring>

#include "kernels/layout.h"
#include "vulkan/device.h"

namespace q8ta::kernels {
namespace {

constexpr int64_t kThreads = 64;
constexpr size_t kWordBytes = 4;

/// What shaders/fill.comp reads as push constants.
struct Arguments {
  uint32_t words, period;
  std::array<uint32_t, 4> value;
};

}  // namespace

FillValue::FillValue(std::span<const std::byte> element) {
  std::array<std::byte, 4 * kWordBytes> bytes{};
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = element[i % element.size()];
  std::memcpy(words_.data(), bytes.data(), bytes.size());
  if (element.size() > kWordBytes) period_ = static_cast<uint32_t>(element.size() / kWordBytes);
}

void record_fill(vulkan::Recorder& recorder, const FillValue& value, const vulkan::BufferRange& y,
                 const char* op) {
  const Arguments arguments{static_cast<uint32_t>(y.size / kWordBytes), value.period(), value.words()};
  vulkan::PipelineSpec spec;
  spec.shader = "fill";
  spec.bindings = 1;
  spec.push_constant_bytes = sizeof(Arguments);
  recorder.dispatch(
      recorder.device().pipelines().get(spec), {{y, true}}, std::as_bytes(std::span(&arguments, 1)),
      static_cast<uint32_t>(ceil_div(arguments.words, kThreads)), {op, "fill", arguments.words, 1, 1});
}

}  // namespace q8ta::kernels
