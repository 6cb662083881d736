#include "kernels/maximum.h"

#include <span>

#include "kernels/layout.h"
#include "vulkan/device.h"

namespace q8ta::kernels {
namespace {

constexpr int64_t kThreads = 64;

/// One invocation alone for few elements, a whole workgroup for many.
bool together(const Maximum& maximum) { return maximum.reduced / maximum.parts >= kThreads; }

vulkan::PipelineSpec spec_of(const char* shader, std::initializer_list<uint32_t> constants,
                             uint32_t bindings) {
  vulkan::PipelineSpec spec;
  spec.shader = shader;
  spec.set_constants(constants);
  spec.bindings = bindings;
  spec.push_constant_bytes = sizeof(Maximum);
  return spec;
}

void record(vulkan::Recorder& recorder, const vulkan::PipelineSpec& spec, bool floats, const Maximum& maximum,
            std::initializer_list<vulkan::Binding> bindings, const char* name, const char* kernel) {
  const int64_t words = floats ? maximum.count : ceil_div(maximum.count, 4);
  recorder.dispatch(
      recorder.device().pipelines().get(spec), bindings, std::as_bytes(std::span(&maximum, 1)),
      static_cast<uint32_t>(together(maximum) ? words : ceil_div(words, kThreads)),
      {name, kernel, maximum.count, static_cast<uint32_t>(ceil_div(maximum.reduced, maximum.parts)), 1});
}

}  // namespace

void record_maximum(vulkan::Recorder& recorder, bool floats, const Maximum& maximum,
                    const vulkan::BufferRange& x, const vulkan::BufferRange& y, const char* name) {
  record(recorder, spec_of("maximum", {floats ? 1U : 0U, together(maximum) ? 1U : 0U}, 2), floats, maximum,
         {{x}, {y, true}}, name, floats ? "reduce_maximum/float32" : "reduce_maximum/int8");
}

void record_maximum_index(vulkan::Recorder& recorder, bool floats, const Maximum& maximum,
                          const vulkan::BufferRange& x, const std::optional<vulkan::BufferRange>& values,
                          const vulkan::BufferRange& indices, const char* name) {
  const vulkan::PipelineSpec spec =
      spec_of("maximum_index", {floats ? 1U : 0U, together(maximum) ? 1U : 0U, values ? 1U : 0U}, 3);
  record(recorder, spec, floats, maximum, {{x}, {values.value_or(indices), true}, {indices, true}}, name,
         floats ? "maximum_index/float32" : "maximum_index/int8");
}

}  // namespace q8ta::kernels
