#include "kernels/pack_host_memory.h"

#include <cstring>

#include "kernels/pack.h"
#include "kernels/pack_pieces.h"
#include "vulkan/stream_pool.h"

namespace q8ta::kernels {
namespace {

/// Calls move(row-major byte, packed byte) for every element.
template <typename Move>
void for_each_element(const Matrices& matrices, Layout layout, Move move) {
  const int64_t K4 = ceil_div(matrices.columns, 4);
  const int64_t matrix_words = packed_words({1, matrices.rows, matrices.columns}, layout);
  int64_t flat = 0;
  for (int64_t matrix = 0; matrix < matrices.count; ++matrix) {
    for (int64_t row = 0; row < matrices.rows; ++row) {
      const bool blocks = layout == Layout::packed_int8_4h4w;
      const int64_t first = matrix * matrix_words + (blocks ? row / 4 * K4 * 4 + row % 4 : row * K4);
      const int64_t word_step = blocks ? 4 : 1;
      for (int64_t column = 0; column < matrices.columns; ++column, ++flat) {
        move(flat, 4 * (first + column / 4 * word_step) + column % 4);
      }
    }
  }
}

}  // namespace

bool device_can_pack(const vulkan::Device& device, const Matrices& matrices) {
  return 4 * (matrices.columns + 4) <= static_cast<int64_t>(device.max_binding_bytes());
}

void run_pack(vulkan::Device& device, const Matrices& matrices, Layout layout, const int8_t* rows,
              int32_t* words) {
  const vulkan::StreamPool::Lease stream = device.streams().acquire();
  for_each_piece(matrices, layout, [&](const Matrices& piece, int64_t first_byte, int64_t first_word) {
    const auto bytes = static_cast<size_t>(4 * packed_words(piece, layout));
    stream->begin();
    stream->set_destination(words + first_word);
    const vulkan::ByteRange source = stream->upload(rows + first_byte, static_cast<size_t>(piece.bytes()));
    record_pack(*stream, source, piece, pack_order(layout), stream->download(0, bytes, 1, bytes), "pack");
    stream->submit();
    stream->wait();
  });
}

void run_unpack(vulkan::Device& device, const Matrices& matrices, Layout layout, const int32_t* words,
                int8_t* rows) {
  const vulkan::StreamPool::Lease stream = device.streams().acquire();
  for_each_piece(matrices, layout, [&](const Matrices& piece, int64_t first_byte, int64_t first_word) {
    const auto bytes = static_cast<size_t>(piece.bytes());
    const auto packed_bytes = static_cast<size_t>(4 * packed_words(piece, layout));
    stream->begin();
    stream->set_destination(rows + first_byte);
    const vulkan::BufferRange packed = stream->upload_words(words + first_word, packed_bytes);
    record_unpack(*stream, packed, piece, pack_order(layout), stream->download(0, bytes, 1, bytes), "unpack");
    stream->submit();
    stream->wait();
  });
}

void host_pack(const Matrices& matrices, Layout layout, const int8_t* rows, int32_t* words) {
  auto* bytes = reinterpret_cast<int8_t*>(words);
  std::memset(words, 0, static_cast<size_t>(4 * packed_words(matrices, layout)));
  for_each_element(matrices, layout, [&](int64_t flat, int64_t packed) { bytes[packed] = rows[flat]; });
}

void host_unpack(const Matrices& matrices, Layout layout, const int32_t* words, int8_t* rows) {
  const auto* bytes = reinterpret_cast<const int8_t*>(words);
  for_each_element(matrices, layout, [&](int64_t flat, int64_t packed) { rows[flat] = bytes[packed]; });
}

}  // namespace q8ta::kernels
