#include "kernels/elementwise.h"

#include <span>

#include "kernels/layout.h"
#include "vulkan/device.h"

namespace q8ta::kernels {
namespace {

constexpr int64_t kThreads = 64;

struct BytePushConstants {
  uint32_t count;
  float input_scale;
  int32_t input_zero_point;
  float inverse_output_scale;
  int32_t output_zero_point;
  int32_t low, high;
};

template <typename PushConstants>
vulkan::PipelineSpec spec_of(std::string_view shader, std::initializer_list<uint32_t> constants,
                             uint32_t bindings) {
  vulkan::PipelineSpec spec;
  spec.shader = shader;
  spec.set_constants(constants);
  spec.bindings = bindings;
  spec.push_constant_bytes = sizeof(PushConstants);
  return spec;
}

uint32_t workgroups_for(int64_t invocations) {
  return static_cast<uint32_t>(ceil_div(invocations, kThreads));
}

const char* kernel_name(ByteOp op) {
  switch (op) {
    case ByteOp::quantize:
      return "quantize";
    case ByteOp::dequantize:
      return "dequantize";
    case ByteOp::requantize:
      return "requantize";
    case ByteOp::clamp:
      return "clamp/int8";
    case ByteOp::maximum:
      return "maximum/int8";
    case ByteOp::minimum:
      return "minimum/int8";
  }
  return "";
}

const char* kernel_name(FloatOp op) {
  switch (op) {
    case FloatOp::clamp:
      return "clamp/float32";
    case FloatOp::add:
      return "add/float32";
    case FloatOp::subtract:
      return "subtract/float32";
    case FloatOp::multiply:
      return "multiply/float32";
    case FloatOp::divide:
      return "divide/float32";
    case FloatOp::maximum:
      return "maximum/float32";
    case FloatOp::minimum:
      return "minimum/float32";
    case FloatOp::negate:
      return "negate/float32";
  }
  return "";
}

}  // namespace

void record_byte_map(vulkan::Recorder& recorder, const ByteMap& map, const vulkan::BufferRange& x,
                     const vulkan::BufferRange& other, const vulkan::BufferRange& y, uint32_t count,
                     const char* op) {
  const vulkan::PipelineSpec spec =
      spec_of<BytePushConstants>("quantization", {static_cast<uint32_t>(map.op), map.is_signed ? 1U : 0U}, 3);
  const Quantization& quantization = map.quantization;
  const BytePushConstants arguments{count,
                                    quantization.input_scale,
                                    quantization.input_zero_point,
                                    quantization.inverse_output_scale,
                                    quantization.output_zero_point,
                                    map.low,
                                    map.high};
  recorder.dispatch(recorder.device().pipelines().get(spec), {{x}, {y, true}, {other}},
                    std::as_bytes(std::span(&arguments, 1)), workgroups_for(ceil_div(count, 4)),
                    {op, kernel_name(map.op), count, 1, 1});
}

void record_float_map(vulkan::Recorder& recorder, FloatOp op, NumberOperand number, const FloatMap& map,
                      const vulkan::BufferRange& a, const vulkan::BufferRange& b,
                      const vulkan::BufferRange& y, const char* name) {
  const vulkan::PipelineSpec spec = spec_of<FloatMap>(
      "float_map", {static_cast<uint32_t>(op), static_cast<uint32_t>(number), map.dimensions > 0 ? 1U : 0U},
      3);
  recorder.dispatch(recorder.device().pipelines().get(spec), {{a}, {b}, {y, true}},
                    std::as_bytes(std::span(&map, 1)), workgroups_for(map.count),
                    {name, kernel_name(op), map.count, 1, 1});
}

void record_strided_copy(vulkan::Recorder& recorder, const StridedCopy& copy, uint32_t element_bytes,
                         bool dense, const vulkan::BufferRange& from, const vulkan::BufferRange& to,
                         const char* op) {
  const vulkan::PipelineSpec spec = spec_of<StridedCopy>("strided_copy", {element_bytes, dense ? 1U : 0U}, 2);
  const int64_t elements_in_word = dense && element_bytes < 4 ? 4 / element_bytes : 1;
  recorder.dispatch(
      recorder.device().pipelines().get(spec), {{from}, {to, true}}, std::as_bytes(std::span(&copy, 1)),
      workgroups_for(ceil_div(copy.count, elements_in_word)), {op, "strided_copy", copy.count, 1, 1});
}

}  // namespace q8ta::kernels
