#include "kernels/pack.h"

#include <span>

#include "kernels/linear_gemm.h"
#include "kernels/linear_gemv.h"
#include "vulkan/device.h"

namespace q8ta::kernels {
namespace {

constexpr int64_t kThreads = 64;

// shaders/include/pack_arguments.glsl
struct PackPushConstants {
  uint32_t rows, columns, words_per_row, word_count, first_byte, byte_count;
};

uint32_t shader_order(PackOrder order) {
  switch (order) {
    case PackOrder::blocks_4h4w:
      return 1;
    case PackOrder::tiles:
      return 2;
    default:
      return 0;
  }
}

const char* pack_name(PackOrder order) {
  switch (order) {
    case PackOrder::rows_4w:
      return "pack/4w";
    case PackOrder::blocks_4h4w:
      return "pack/4h4w";
    case PackOrder::tiles:
      return "pack/tiles";
    default:
      return "pack/padded_rows";
  }
}

const char* unpack_name(PackOrder order) {
  return order == PackOrder::blocks_4h4w ? "unpack/4h4w" : "unpack/4w";
}

void record(vulkan::Recorder& recorder, std::string_view shader, const vulkan::BufferRange& from,
            const vulkan::BufferRange& to, const Matrices& matrices, PackOrder order, int64_t word_count,
            uint32_t first_byte, const char* op, const char* kernel) {
  vulkan::PipelineSpec spec;
  spec.shader = shader;
  spec.set_constants({shader_order(order)});
  spec.bindings = 2;
  spec.push_constant_bytes = sizeof(PackPushConstants);
  const PackPushConstants arguments{static_cast<uint32_t>(matrices.rows),
                                    static_cast<uint32_t>(matrices.columns),
                                    static_cast<uint32_t>(packed_row_words(matrices.columns, order)),
                                    static_cast<uint32_t>(word_count),
                                    first_byte,
                                    static_cast<uint32_t>(matrices.bytes())};
  recorder.dispatch(recorder.device().pipelines().get(spec), {{from}, {to, true}},
                    std::as_bytes(std::span(&arguments, 1)),
                    static_cast<uint32_t>(ceil_div(word_count, kThreads)),
                    {op, kernel, static_cast<uint32_t>(matrices.count * matrices.rows),
                     static_cast<uint32_t>(matrices.columns), 0});
}

}  // namespace

void record_pack(vulkan::Recorder& recorder, const vulkan::ByteRange& source, const Matrices& matrices,
                 PackOrder order, const vulkan::BufferRange& packed, const char* op) {
  record(recorder, "pack", source.range, packed, matrices, order, packed_words(matrices, order),
         source.first_byte, op, pack_name(order));
}

void record_unpack(vulkan::Recorder& recorder, const vulkan::BufferRange& packed, const Matrices& matrices,
                   PackOrder order, const vulkan::BufferRange& destination, const char* op) {
  record(recorder, "unpack", packed, destination, matrices, order, ceil_div(matrices.bytes(), 4), 0, op,
         unpack_name(order));
}

}  // namespace q8ta::kernels
