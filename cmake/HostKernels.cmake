# The host kernel is compiled for several instruction sets, one a file, and chosen at run time. Without fused
# multiply-adds everywhere: they round differently from the GPU and the reference.
set(HOST_KERNEL_OPTIONS -O3 -ffp-contract=off)
function(compile_host_kernel name)
  set(options ${HOST_KERNEL_OPTIONS} ${ARGN})
  set_source_files_properties(csrc/kernels/${name}.cpp PROPERTIES COMPILE_OPTIONS "${options}")
endfunction()

compile_host_kernel(host_quantize)
compile_host_kernel(host_gemm_portable)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
  compile_host_kernel(host_gemm_avx2 -mavx2)
  compile_host_kernel(host_gemm_avx_vnni -mavx2 -mavxvnni)
  set(AVX512 -mavx512f -mavx512bw -mavx512vl -mavx512vnni -mprefer-vector-width=512
             -Wno-uninitialized -Wno-maybe-uninitialized) # what GCC 12's own header for AVX-512 does
  compile_host_kernel(host_gemm_avx512_vnni ${AVX512})
  compile_host_kernel(host_gemm_amx ${AVX512} -mamx-tile -mamx-int8)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64)$")
  compile_host_kernel(host_gemm_neon_dot -march=armv8.2-a+dotprod)
endif()
