#include "kernels/maximum.h"

#include <span>

#include "kernels/layout.h"
#include "vulkan/device.h"

namespace q8ta::kernels {
namespace {

constexpr int64_t kThreads = 64;

}  // namespace

void record_maximum(vulkan::Recorder& recorder, bool floats, const Maximum& maximum,
                    const vulkan::BufferRange& x, const vulkan::BufferRange& y, const char* name) {
  // One invocation alone for few elements, a whole workgroup for many.
  const bool together = maximum.reduced / maximum.parts >= kThreads;
  vulkan::PipelineSpec spec;
  spec.shader = "maximum";
  spec.set_constants({floats ? 1U : 0U, together ? 1U : 0U});
  spec.bindings = 2;
  spec.push_constant_bytes = sizeof(Maximum);
  const int64_t words = floats ? maximum.count : ceil_div(maximum.count, 4);
  recorder.dispatch(recorder.device().pipelines().get(spec), {{x}, {y, true}},
                    std::as_bytes(std::span(&maximum, 1)),
                    static_cast<uint32_t>(together ? words : ceil_div(words, kThreads)),
                    {name, floats ? "reduce_maximum/float32" : "reduce_maximum/int8", maximum.count,
                     static_cast<uint32_t>(ceil_div(maximum.reduced, maximum.parts)), 1});
}

}  // namespace q8ta::kernels
