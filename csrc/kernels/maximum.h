#pragma once

#include <array>
#include <cstdint>

#include "vulkan/recorder.h"

namespace q8ta::kernels {

/// What shaders/maximum.comp reads as push constants: `count` maxima, each over `reduced` / `parts` elements
/// (rounded up; the last one over the rest). Strides and offsets count elements; the kept dimensions come
/// first, the last one of all is the innermost.
struct Maximum {
  static constexpr size_t kMaxDimensions = 6;

  uint32_t count = 0, parts = 1, reduced = 0, first_x = 0, dimensions = 0;
  std::array<uint32_t, kMaxDimensions> sizes{}, x_strides{};
};

/// Records the maxima of float32 elements, else int8 ones. y holds them one after the other, in whole words.
void record_maximum(vulkan::Recorder& recorder, bool floats, const Maximum& maximum,
                    const vulkan::BufferRange& x, const vulkan::BufferRange& y, const char* name);

}  // namespace q8ta::kernels
