#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace q8ta::vulkan {

/// A SPIR-V module that was compiled with the library. Its code is generated at build time.
struct Shader {
  std::string_view name;
  std::span<const uint32_t> code;
};

/// All embedded modules (defined by the generated source file).
std::span<const Shader> embedded_shaders();

/// Null when the build left the variant out because its GLSL compiler could not compile it.
const Shader* find_shader(std::string_view name);

}  // namespace q8ta::vulkan
