#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <memory>
#include <vector>

#include "device.h"
#include "kernels/layout.h"
#include "kernels/pack.h"
#include "kernels/pack_host_memory.h"
#include "kernels/pack_pieces.h"
#include "kernels/weights.h"
#include "samples.h"
#include "vulkan/device_stream.h"

namespace q8ta::test {
namespace {

using kernels::Layout;
using kernels::Matrices;
using kernels::PackOrder;

constexpr std::array<Layout, 2> kLayouts{Layout::packed_int8_4w, Layout::packed_int8_4h4w};

ExactBytes random_rows(const Matrices& matrices, size_t offset) {
  Numbers numbers(static_cast<uint64_t>(matrices.bytes()));
  ExactBytes rows(static_cast<size_t>(matrices.bytes()), offset);
  std::generate_n(rows.data(), rows.size(), [&] { return numbers.byte(); });
  return rows;
}

/// Where an element lies, from the layouts' definition.
size_t packed_byte(const Matrices& matrices, Layout layout, int64_t matrix, int64_t row, int64_t column) {
  const int64_t K4 = (matrices.columns + 3) / 4;
  const int64_t rows4 = (matrices.rows + 3) / 4;
  int64_t word = (matrix * matrices.rows + row) * K4 + column / 4;
  if (layout == Layout::packed_int8_4h4w) word = ((matrix * rows4 + row / 4) * K4 + column / 4) * 4 + row % 4;
  return static_cast<size_t>(4 * word + column % 4);
}

std::vector<int8_t> expected_bytes(const Matrices& matrices, Layout layout, const int8_t* rows) {
  std::vector<int8_t> bytes(static_cast<size_t>(4 * kernels::packed_words(matrices, layout)));
  for (int64_t matrix = 0; matrix < matrices.count; ++matrix) {
    for (int64_t row = 0; row < matrices.rows; ++row) {
      for (int64_t column = 0; column < matrices.columns; ++column) {
        const int64_t flat = (matrix * matrices.rows + row) * matrices.columns + column;
        bytes.at(packed_byte(matrices, layout, matrix, row, column)) = rows[flat];
      }
    }
  }
  return bytes;
}

/// One matrix in PackOrder::tiles, from its definition.
std::vector<int8_t> expected_tiles(const Matrices& matrix, const int8_t* rows) {
  const int64_t K64 = (matrix.columns + 63) / 64;
  std::vector<int8_t> bytes(static_cast<size_t>((matrix.rows + 63) / 64 * K64 * 4096));
  for (int64_t row = 0; row < matrix.rows; ++row) {
    for (int64_t column = 0; column < matrix.columns; ++column) {
      const int64_t block = row / 64 * K64 + column / 64;
      const int64_t chunk = row % 32 * 8 + row / 32 % 2 * 4 + column / 16 % 4;
      bytes.at(static_cast<size_t>(block * 4096 + chunk * 16 + column % 16)) =
          rows[row * matrix.columns + column];
    }
  }
  return bytes;
}

template <typename Pack, typename Unpack>
void check_round_trip(const Matrices& matrices, Layout layout, size_t offset, const Pack& pack,
                      const Unpack& unpack) {
  INFO(matrices.count, " x ", matrices.rows, " x ", matrices.columns, ", layout ", static_cast<int>(layout));
  const ExactBytes rows = random_rows(matrices, offset);
  const auto count = static_cast<size_t>(kernels::packed_words(matrices, layout));
  const auto words = std::make_unique<int32_t[]>(count);
  pack(rows.data(), words.get());
  const auto* bytes = reinterpret_cast<const int8_t*>(words.get());
  REQUIRE(std::vector<int8_t>(bytes, bytes + 4 * count) == expected_bytes(matrices, layout, rows.data()));
  ExactBytes back(rows.size(), offset);
  unpack(words.get(), back.data());
  REQUIRE(std::equal(back.data(), back.data() + back.size(), rows.data()));
}

}  // namespace

TEST_CASE("pack and unpack on the host and on the device") {
  for (const Layout layout : kLayouts) {
    size_t i = 0;
    for (const int64_t count : {1, 3}) {
      for (const int64_t rows : {1, 2, 3, 4, 5, 8, 13}) {
        for (const int64_t columns : {1, 2, 3, 4, 5, 7, 16, 33}) {
          const Matrices matrices{count, rows, columns};
          check_round_trip(
              matrices, layout, i++ % 5,
              [&](const int8_t* from, int32_t* to) { kernels::host_pack(matrices, layout, from, to); },
              [&](const int32_t* from, int8_t* to) { kernels::host_unpack(matrices, layout, from, to); });
          if (i % 4 != 0) continue;
          check_round_trip(
              matrices, layout, i % 5,
              [&](const int8_t* from, int32_t* to) {
                kernels::run_pack(device(), matrices, layout, from, to);
              },
              [&](const int32_t* from, int8_t* to) {
                kernels::run_unpack(device(), matrices, layout, from, to);
              });
        }
      }
    }
  }
}

TEST_CASE("weights are packed into tiles") {
  for (const int64_t rows : {1, 63, 64, 65, 100, 128, 229}) {
    for (const int64_t columns : {1, 15, 16, 63, 64, 65, 128, 200}) {
      INFO(rows, " x ", columns);
      const Matrices matrix{1, rows, columns};
      const ExactBytes weights = random_rows(matrix, 0);
      const std::vector<int8_t> expected = expected_tiles(matrix, weights.data());
      const PoolMemory source(device(), weights.size());
      const PoolMemory packed(device(), expected.size());
      device().stream().upload(weights.data(), weights.size(), source.range());
      device().stream().record([&](vulkan::Recorder& recorder) {
        kernels::record_pack(recorder, {source.range(weights.size()), 0}, matrix, PackOrder::tiles,
                             packed.range(expected.size()), "test");
      });
      REQUIRE(download(device(), packed, expected.size()) == expected);
    }
  }
}

TEST_CASE("weights of the host are packed into tiles in pieces") {
  const Matrices matrix{1, 700, 40'008};
  const ExactBytes weights = random_rows(matrix, 0);
  const kernels::DeviceWeights on_device(device(), weights.data(), matrix.rows, matrix.columns,
                                         /*packed=*/false, PackOrder::tiles);
  const std::vector<int8_t> expected = expected_tiles(matrix, weights.data());
  REQUIRE(on_device.bytes() == expected.size());
  std::vector<int8_t> bytes(expected.size());
  device().stream().download(on_device.rows(0, matrix.rows), bytes.size(), bytes.data());
  REQUIRE(bytes == expected);
}

TEST_CASE("whole blocks of a packed matrix come before its other rows") {
  for (const PackOrder order : {PackOrder::padded_rows, PackOrder::tiles}) {
    for (const int64_t columns : {1, 16, 65, 1000}) {
      const auto words = [&](int64_t rows) { return kernels::packed_words({1, rows, columns}, order); };
      for (const int64_t rows : {1, 64, 300}) {
        REQUIRE(words(512) + words(rows) == words(512 + rows));
      }
    }
  }
}

TEST_CASE("pack and unpack of memory that is imported, in pieces") {
  for (const Matrices& matrices : {Matrices{1, 1021, 1030}, Matrices{3, 600, 513}, Matrices{2, 4099, 4100}}) {
    for (const Layout layout : kLayouts) {
      check_round_trip(
          matrices, layout, 1,
          [&](const int8_t* from, int32_t* to) { kernels::run_pack(device(), matrices, layout, from, to); },
          [&](const int32_t* from, int8_t* to) {
            kernels::run_unpack(device(), matrices, layout, from, to);
          });
    }
  }
}

TEST_CASE("pieces follow each other and cover everything") {
  Numbers numbers(11);
  for (int i = 0; i < 2000; ++i) {
    // Up to 2^42 bytes; sizes that are random in their logarithm.
    const auto size = [&] { return int64_t{1} + numbers.next() % (int64_t{1} << numbers.below(15)); };
    const Matrices matrices{size(), size(), size()};
    for (const Layout layout : kLayouts) {
      if (matrices.bytes() > (int64_t{1} << 34)) continue;
      int64_t bytes = 0;
      int64_t words = 0;
      kernels::for_each_piece(
          matrices, layout, [&](const Matrices& piece, int64_t first_byte, int64_t first_word) {
            REQUIRE(first_byte == bytes);
            REQUIRE(first_word == words);
            REQUIRE(piece.bytes() > 0);
            REQUIRE((piece.bytes() <= kernels::kPieceBytes || (piece.count == 1 && piece.rows <= 4)));
            bytes += piece.bytes();
            words += kernels::packed_words(piece, layout);
          });
      REQUIRE(bytes == matrices.bytes());
      REQUIRE(words == kernels::packed_words(matrices, layout));
    }
  }
}

}  // namespace q8ta::test
