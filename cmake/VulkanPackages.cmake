# Vulkan-Headers, volk and VulkanMemoryAllocator from installed packages. Q8TA_DEPS (or CMAKE_PREFIX_PATH) may name
# a prefix of their own, as scripts/fetch_from_debian13.sh makes one on Debian 12.
find_path(Q8TA_VULKAN_INCLUDE vulkan/vulkan_core.h HINTS "${Q8TA_DEPS}/include")
find_path(Q8TA_VOLK_INCLUDE volk.c HINTS "${Q8TA_DEPS}/include" PATH_SUFFIXES Volk volk)
find_path(Q8TA_VMA_INCLUDE vk_mem_alloc.h HINTS "${Q8TA_DEPS}/include" PATH_SUFFIXES vma)
foreach(package VULKAN VOLK VMA)
  if(NOT Q8TA_${package}_INCLUDE)
    message(FATAL_ERROR
      "The headers of ${package} were not found. Debian 13, Ubuntu 24.04: apt install libvulkan-dev "
      "libvulkan-volk-dev libvulkan-memory-allocator-dev. Debian 12: bash scripts/fetch_from_debian13.sh")
  endif()
endforeach()
message(STATUS "Vulkan-Headers: ${Q8TA_VULKAN_INCLUDE}, volk: ${Q8TA_VOLK_INCLUDE}, VMA: ${Q8TA_VMA_INCLUDE}")

add_library(q8ta_vulkan_packages INTERFACE)
add_library(Q8ta::VulkanPackages ALIAS q8ta_vulkan_packages)
target_include_directories(q8ta_vulkan_packages SYSTEM INTERFACE
  "${Q8TA_VULKAN_INCLUDE}" "${Q8TA_VOLK_INCLUDE}" "${Q8TA_VMA_INCLUDE}")
