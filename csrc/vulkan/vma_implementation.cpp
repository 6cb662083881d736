// The one translation unit that holds VulkanMemoryAllocator's code; its warnings are not ours.
#include <volk.h>

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <new>

namespace {

/// VMA itself would go on with a null pointer.
void* allocate_or_throw(std::size_t bytes, std::size_t alignment) {
  const std::size_t aligned = std::max(alignment, sizeof(void*));
  void* memory = std::aligned_alloc(aligned, (bytes + aligned - 1) / aligned * aligned);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace

#define VMA_SYSTEM_ALIGNED_MALLOC(bytes, alignment) allocate_or_throw((bytes), (alignment))
#define VMA_SYSTEM_ALIGNED_FREE(memory) std::free(memory)
#if defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wall"
#pragma GCC diagnostic ignored "-Wextra"
#pragma GCC diagnostic ignored "-Wunused-parameter"
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"
#pragma GCC diagnostic ignored "-Wunused-variable"
#endif
#define VMA_IMPLEMENTATION
#include "vulkan/vma.h"
#if defined(__GNUC__)
#pragma GCC diagnostic pop
#endif
