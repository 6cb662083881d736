#pragma once

#include <volk.h>

// volk has no link-time prototypes: VMA gets its functions from the two loaders that Device passes it.
#define VMA_STATIC_VULKAN_FUNCTIONS 0
#define VMA_DYNAMIC_VULKAN_FUNCTIONS 1
#include <vk_mem_alloc.h>
