#pragma once

#include <cstdint>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace q8ta::ops {

inline std::string text_of(const char* text) { return text; }
inline std::string text_of(const std::string& text) { return text; }
inline std::string text_of(std::string_view text) { return std::string(text); }
inline std::string text_of(int64_t number) { return std::to_string(number); }
inline std::string text_of(double number) {
  char text[32];
  std::snprintf(text, sizeof(text), "%g", number);
  return text;
}
inline std::string text_of(const std::vector<int64_t>& sizes) {
  std::string text = "[";
  for (size_t i = 0; i < sizes.size(); ++i) text += (i > 0 ? ", " : "") + std::to_string(sizes[i]);
  return text + "]";
}

/// The parts in a row. Not by a stream: in a build with GCC 13.3 for torch 2.11 with CUDA, the first number
/// that went through one ended the process.
template <typename... Parts>
std::string joined_text(const Parts&... parts) {
  std::string text;
  ((text += text_of(parts)), ...);
  return text;
}

/// Throws what becomes a RuntimeError: "q8ta::<op>: <argument>: <parts>".
template <typename... Parts>
[[noreturn]] void fail(const char* op, const char* argument, const Parts&... parts) {
  throw std::runtime_error(joined_text("q8ta::", op, ": ", argument, ": ", parts...));
}

}  // namespace q8ta::ops
