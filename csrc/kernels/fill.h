#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "vulkan/recorder.h"

namespace q8ta::kernels {

/// Most bytes of one dispatch: the binding stays within every device's limit, and the next part begins where
/// a binding may, with a whole value.
inline constexpr VkDeviceSize kFilledInDispatch = VkDeviceSize{1} << 26U;

/// An element's bytes as whole words, repeated if it has less than one.
class FillValue {
 public:
  /// `element` has 1, 2, 4, 8 or 16 bytes.
  explicit FillValue(std::span<const std::byte> element);

  uint32_t period() const { return period_; }  ///< words after which it begins again
  const std::array<uint32_t, 4>& words() const { return words_; }

 private:
  uint32_t period_ = 1;
  std::array<uint32_t, 4> words_{};
};

/// Records that y, at most kFilledInDispatch bytes and whole words, holds nothing but the value.
void record_fill(vulkan::Recorder& recorder, const FillValue& value, const vulkan::BufferRange& y,
                 const char* op);

}  // namespace q8ta::kernels
