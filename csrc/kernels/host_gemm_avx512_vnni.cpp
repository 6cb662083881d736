// Compiled for AVX-512 with VNNI; called only where the processor has them.
#include "kernels/host_gemm_variant.h"

#if defined(__AVX512VNNI__) && defined(__AVX512BW__)
#include "kernels/host_gemm_avx512.h"

namespace q8ta::kernels {
namespace {

constexpr HostVariant kVariant{"avx512_vnni", &has_avx512_vnni, rows_path<Avx512Vnni>(),
                               packed_path<Avx512Vnni>()};

}  // namespace

const HostVariant* avx512_vnni_variant() { return &kVariant; }

}  // namespace q8ta::kernels

#else

const q8ta::kernels::HostVariant* q8ta::kernels::avx512_vnni_variant() { return nullptr; }

#endif
