#include "vulkan/shader.h"

namespace q8ta::vulkan {

const Shader* find_shader(std::string_view name) {
  for (const Shader& shader : embedded_shaders()) {
    if (shader.name == name) return &shader;
  }
  return nullptr;
}

}  // namespace q8ta::vulkan
