#pragma once

#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include "ops/messages.h"

namespace q8ta::device {

inline std::string text_of(c10::Device device) { return device.str(); }
inline std::string text_of(c10::ScalarType type) { return c10::toString(type); }
using ops::text_of;

/// What TORCH_CHECK and TORCH_WARN print, as one string (see ops::joined_text).
template <typename... Parts>
std::string message(const Parts&... parts) {
  std::string text;
  ((text += text_of(parts)), ...);
  return text;
}

}  // namespace q8ta::device
