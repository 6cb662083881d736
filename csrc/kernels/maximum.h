#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "vulkan/recorder.h"

namespace q8ta::kernels {

/// What shaders/maximum.comp and maximum_index.comp read as push constants: `count` maxima, each over
/// `reduced` / `parts` elements (rounded up; the last one over the rest). Strides and offsets count elements;
/// the kept dimensions come first, the last one of all is the innermost.
struct Maximum {
  static constexpr size_t kMaxDimensions = 6;

  uint32_t count = 0, parts = 1, reduced = 0, first_x = 0, dimensions = 0;
  std::array<uint32_t, kMaxDimensions> sizes{}, x_strides{};
};

/// Records the maxima of float32 elements, else int8 ones. y holds them one after the other, in whole words.
void record_maximum(vulkan::Recorder& recorder, bool floats, const Maximum& maximum,
                    const vulkan::BufferRange& x, const vulkan::BufferRange& y, const char* name);

/// Records where they are: int64 indices of the first ones among the reduced elements. `maximum` has one
/// part. `values` holds them as y does, and may be left out.
void record_maximum_index(vulkan::Recorder& recorder, bool floats, const Maximum& maximum,
                          const vulkan::BufferRange& x, const std::optional<vulkan::BufferRange>& values,
                          const vulkan::BufferRange& indices, const char* name);

}  // namespace q8ta::kernels
