#pragma once

#include <cstdint>

#include "kernels/layout.h"
#include "vulkan/device.h"

namespace q8ta::kernels {

/// True if the device's bindings can hold four rows of the matrices, which is what a dispatch needs at least.
bool device_can_pack(const vulkan::Device& device, const Matrices& matrices);

/// pack and unpack between host memories, on a device: `rows` is row-major int8, `words` the packed layout.
void run_pack(vulkan::Device& device, const Matrices& matrices, Layout layout, const int8_t* rows,
              int32_t* words);
void run_unpack(vulkan::Device& device, const Matrices& matrices, Layout layout, const int32_t* words,
                int8_t* rows);

/// The same on the host.
void host_pack(const Matrices& matrices, Layout layout, const int8_t* rows, int32_t* words);
void host_unpack(const Matrices& matrices, Layout layout, const int32_t* words, int8_t* rows);

}  // namespace q8ta::kernels
