// The one translation unit that holds VulkanMemoryAllocator's code; its warnings are not ours.
#include <volk.h>

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
