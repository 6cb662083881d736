// PRESERVE_SUBNORMALS: float32 arithmetic neither flushes subnormal operands nor results, as the CPU's does
// not. A driver may flush them otherwise (NVIDIA's does), and not every driver can do without.
#if PRESERVE_SUBNORMALS
#extension GL_EXT_spirv_intrinsics : require
// Capability 4464 and execution mode 4459: DenormPreserve.
spirv_execution_mode(extensions = ["SPV_KHR_float_controls"], capabilities = [4464], 4459, 32);
#endif
