#pragma once

#include <string>

#include "vulkan/device.h"

namespace q8ta::kernels {

/// Does something that one mode of the validation layer must notice, so that a silent run proves itself:
/// "core" makes an empty buffer, "sync" reads what it has just written without a barrier, "gpu" reads behind
/// a binding. Throws Error with the layer's messages if it noticed; returns if nothing was said.
void seed_validation_fault(vulkan::Device& device, const std::string& kind);

}  // namespace q8ta::kernels
