# What Python loads: the op library, on libtorch's stable ABI (one binary serves torch 2.11 and later), and the
# pybind11 module, which knows no torch.
find_package(Python 3.10 REQUIRED COMPONENTS Interpreter Development.Module)

execute_process(
  COMMAND "${Python_EXECUTABLE}" -c "import torch, os; print(os.path.dirname(torch.__file__), end='')"
  OUTPUT_VARIABLE TORCH_ROOT RESULT_VARIABLE torch_result)
if(NOT torch_result EQUAL 0)
  message(FATAL_ERROR "torch could not be imported by ${Python_EXECUTABLE}: install torch 2.11 or later first")
endif()
execute_process(
  COMMAND "${Python_EXECUTABLE}" -c "import pybind11; print(pybind11.get_cmake_dir(), end='')"
  OUTPUT_VARIABLE pybind11_DIR COMMAND_ERROR_IS_FATAL ANY)
find_package(pybind11 CONFIG REQUIRED)

# The messages of failed checks name their source file, but not where it lay on the build machine.
add_compile_options("-fmacro-prefix-map=${CMAKE_SOURCE_DIR}/=" "-fmacro-prefix-map=${TORCH_ROOT}/=torch/")

file(GLOB OPS_SOURCES CONFIGURE_DEPENDS csrc/ops/*.cpp)
add_library(q8ta_torch_ops MODULE ${OPS_SOURCES})
set_target_properties(q8ta_torch_ops PROPERTIES PREFIX "" OUTPUT_NAME _torch_ops)
target_include_directories(q8ta_torch_ops SYSTEM PRIVATE "${TORCH_ROOT}/include")
target_compile_definitions(q8ta_torch_ops PRIVATE
  TORCH_STABLE_ONLY TORCH_TARGET_VERSION=0x020b000000000000ULL)
find_library(TORCH_CPU_LIBRARY torch_cpu PATHS "${TORCH_ROOT}/lib" NO_DEFAULT_PATH REQUIRED)
target_link_libraries(q8ta_torch_ops PRIVATE q8ta_vulkan "${TORCH_CPU_LIBRARY}")
# libtorch is loaded by Python already; no path of the build machine's torch belongs in the binary.
set_target_properties(q8ta_torch_ops PROPERTIES INSTALL_RPATH_USE_LINK_PATH OFF)

pybind11_add_module(_C MODULE csrc/bindings/module.cpp csrc/bindings/storage_watcher.cpp)
target_link_libraries(_C PRIVATE q8ta_vulkan)

file(GLOB BENCHMARK_SOURCES CONFIGURE_DEPENDS csrc/benchmark/*.cpp)
pybind11_add_module(_benchmark MODULE ${BENCHMARK_SOURCES})
target_link_libraries(_benchmark PRIVATE q8ta_vulkan)

# The vk device needs torch's C++ ABI, which changes from one minor version to the next: its library is named after
# the torch that it was built for, and loaded only by q8ta_ops.enable_vk_device().
execute_process(
  COMMAND "${Python_EXECUTABLE}" -c "import torch; print('_'.join(torch.__version__.split('.')[:2]), end='')"
  OUTPUT_VARIABLE TORCH_MINOR COMMAND_ERROR_IS_FATAL ANY)
file(GLOB DEVICE_SOURCES CONFIGURE_DEPENDS csrc/device/*.cpp csrc/ops/quantization_checks.cpp)
pybind11_add_module(q8ta_vk_device MODULE ${DEVICE_SOURCES})
set_target_properties(q8ta_vk_device PROPERTIES OUTPUT_NAME "_vk_device_torch_${TORCH_MINOR}"
                                                INSTALL_RPATH_USE_LINK_PATH OFF)
target_include_directories(q8ta_vk_device SYSTEM PRIVATE
  "${TORCH_ROOT}/include" "${TORCH_ROOT}/include/torch/csrc/api/include")
find_library(C10_LIBRARY c10 PATHS "${TORCH_ROOT}/lib" NO_DEFAULT_PATH REQUIRED)
find_library(TORCH_PYTHON_LIBRARY torch_python PATHS "${TORCH_ROOT}/lib" NO_DEFAULT_PATH REQUIRED)
target_link_libraries(q8ta_vk_device PRIVATE
  q8ta_vulkan "${TORCH_PYTHON_LIBRARY}" "${TORCH_CPU_LIBRARY}" "${C10_LIBRARY}")

install(TARGETS q8ta_torch_ops _C _benchmark q8ta_vk_device LIBRARY DESTINATION . COMPONENT python)
