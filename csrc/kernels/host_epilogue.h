#pragma once

#include <cstdint>

#include "kernels/linear_types.h"

namespace q8ta::kernels {

/// The epilogue of shaders/include/linear.glsl on the host, for elements begin .. end - 1 of the row-major
/// [M, N] accumulators. `y` is int8 or, if problem.float_output, float32.
void host_epilogue(const LinearProblem& problem, const HostChannels& channels, const int32_t* accumulators,
                   int64_t begin, int64_t end, void* y);

}  // namespace q8ta::kernels
