# GLSL -> SPIR-V (checked by spirv-val) -> one C++ file that holds every module as an array of words.
# Sets Q8TA_EMBEDDED_SHADERS. Q8TA_SPIRV_DIR names a folder of finished modules instead, for a machine without a
# GLSL compiler.
set(Q8TA_SPIRV_DIR "" CACHE PATH "Folder with compiled .spv modules; empty: compile them")
set(SHADER_TARGET vulkan1.2)

if(NOT Q8TA_SPIRV_DIR)
  # A prefix named by Q8TA_DEPS comes first: on Debian 12 it holds newer programs than the system.
  find_program(GLSLANG NAMES glslang glslangValidator HINTS "${Q8TA_DEPS}/bin" REQUIRED)
  find_program(SPIRV_VAL NAMES spirv-val HINTS "${Q8TA_DEPS}/bin" REQUIRED)
  # probe_shader(<variable> <source> [definition ...]): whether this compiler and this validator know what it uses.
  function(probe_shader variable source)
    list(TRANSFORM ARGN PREPEND -D OUTPUT_VARIABLE definitions)
    set(output "${CMAKE_BINARY_DIR}/probe.spv")
    execute_process(
      COMMAND "${GLSLANG}" -V --target-env ${SHADER_TARGET} "-I${CMAKE_SOURCE_DIR}/shaders" ${definitions}
              "${CMAKE_SOURCE_DIR}/shaders/${source}" -o "${output}"
      RESULT_VARIABLE compiles OUTPUT_QUIET ERROR_QUIET)
    execute_process(COMMAND "${SPIRV_VAL}" --target-env ${SHADER_TARGET} "${output}"
                    RESULT_VARIABLE validates OUTPUT_QUIET ERROR_QUIET)
    if(compiles EQUAL 0 AND validates EQUAL 0)
      set(${variable} ON PARENT_SCOPE)
    else()
      set(${variable} OFF PARENT_SCOPE)
    endif()
  endfunction()

  # The packed dot product is declared by GL_EXT_spirv_intrinsics, which glslang has since version 11.
  probe_shader(HAS_INT_DOT linear_gemm.comp INT_DOT=1)
  if(NOT HAS_INT_DOT)
    message(WARNING "GLSL compiler ${GLSLANG} lacks GL_EXT_spirv_intrinsics: the kernels with the packed int8 "
                    "dot product are left out, and plain integer arithmetic serves every device")
  endif()
  # GL_KHR_cooperative_matrix came with glslang 13.
  probe_shader(HAS_COOPERATIVE_MATRIX linear_gemm_coopmat.comp TILE_STEPS=2)
  if(NOT HAS_COOPERATIVE_MATRIX)
    message(WARNING "GLSL compiler ${GLSLANG} or ${SPIRV_VAL} lacks cooperative matrices: their kernels are left out, "
                    "and GPUs that have them multiply with dot products, several times slower")
  endif()
  message(STATUS "GLSL compiler ${GLSLANG}: dot product ${HAS_INT_DOT}, cooperative matrices ${HAS_COOPERATIVE_MATRIX}")
endif()

set(SPIRV_FILES)
file(GLOB SHADER_INCLUDES CONFIGURE_DEPENDS
  "${CMAKE_SOURCE_DIR}/shaders/include/*.glsl" "${CMAKE_SOURCE_DIR}/shaders/benchmark/*.glsl")
set(SPIRV_OUT "${CMAKE_BINARY_DIR}/spirv")
file(MAKE_DIRECTORY "${SPIRV_OUT}")

# add_shader(<module> <source> [definition ...])
function(add_shader module source)
  if(Q8TA_SPIRV_DIR)
    if(EXISTS "${Q8TA_SPIRV_DIR}/${module}.spv")
      set(SPIRV_FILES ${SPIRV_FILES} "${Q8TA_SPIRV_DIR}/${module}.spv" PARENT_SCOPE)
    else()
      message(WARNING "${Q8TA_SPIRV_DIR} has no ${module}.spv: that kernel is left out")
    endif()
    return()
  endif()
  set(output "${SPIRV_OUT}/${module}.spv")
  list(TRANSFORM ARGN PREPEND -D OUTPUT_VARIABLE definitions)
  add_custom_command(
    OUTPUT "${output}"
    COMMAND "${GLSLANG}" -V --quiet --target-env ${SHADER_TARGET} "-I${CMAKE_SOURCE_DIR}/shaders" ${definitions}
            "${CMAKE_SOURCE_DIR}/shaders/${source}" -o "${output}"
    COMMAND "${SPIRV_VAL}" --target-env ${SHADER_TARGET} "${output}"
    DEPENDS "${CMAKE_SOURCE_DIR}/shaders/${source}" ${SHADER_INCLUDES}
    COMMENT "Shader ${module}" VERBATIM)
  set(SPIRV_FILES ${SPIRV_FILES} "${output}" PARENT_SCOPE)
endfunction()

add_shader(pack pack.comp)
add_shader(unpack unpack.comp)
add_shader(quantization quantization.comp)
add_shader(float_map float_map.comp)
add_shader(strided_copy strided_copy.comp)
add_shader(maximum maximum.comp)
add_shader(maximum_index maximum_index.comp)
add_shader(fill fill.comp)
add_shader(linear_gemm.plain linear_gemm.comp INT_DOT=0)
add_shader(linear_rows.plain linear_rows.comp INT_DOT=0)
add_shader(linear_gemv.subgroup.plain linear_gemv.comp INT_DOT=0 SUBGROUP=1)
add_shader(linear_gemv.shared.plain linear_gemv.comp INT_DOT=0 SUBGROUP=0)
if(HAS_INT_DOT OR Q8TA_SPIRV_DIR)
  add_shader(linear_gemm.int_dot linear_gemm.comp INT_DOT=1)
  add_shader(linear_rows.int_dot linear_rows.comp INT_DOT=1)
  add_shader(linear_gemv.subgroup.int_dot linear_gemv.comp INT_DOT=1 SUBGROUP=1)
  add_shader(linear_gemv.shared.int_dot linear_gemv.comp INT_DOT=1 SUBGROUP=0)
endif()
if(HAS_COOPERATIVE_MATRIX OR Q8TA_SPIRV_DIR)
  foreach(steps 2 4 8)
    add_shader(linear_gemm_coopmat.${steps}_steps linear_gemm_coopmat.comp TILE_STEPS=${steps})
  endforeach()
  add_shader(linear_rows_coopmat linear_rows_coopmat.comp)
endif()
include(BenchmarkShaders)

set(Q8TA_EMBEDDED_SHADERS "${CMAKE_BINARY_DIR}/embedded_shaders.cpp")
add_custom_command(
  OUTPUT "${Q8TA_EMBEDDED_SHADERS}"
  COMMAND "${CMAKE_COMMAND}" "-DSPIRV_FILES=${SPIRV_FILES}" "-DOUTPUT=${Q8TA_EMBEDDED_SHADERS}"
          -P "${CMAKE_SOURCE_DIR}/cmake/embed_spirv.cmake"
  DEPENDS ${SPIRV_FILES} "${CMAKE_SOURCE_DIR}/cmake/embed_spirv.cmake"
  COMMENT "Embedding SPIR-V" VERBATIM)
