#include "vulkan/memory_info.h"

#include <array>

#include "vulkan/vma.h"

namespace q8ta::vulkan {

MemoryInfo memory_info(const Device& device) {
  const VkPhysicalDeviceMemoryProperties* properties = nullptr;
  vmaGetMemoryProperties(device.allocator(), &properties);
  std::array<VmaBudget, VK_MAX_MEMORY_HEAPS> budgets{};
  vmaGetHeapBudgets(device.allocator(), budgets.data());
  MemoryInfo info{};
  for (uint32_t heap = 0; heap < properties->memoryHeapCount; ++heap) {
    if ((properties->memoryHeaps[heap].flags & VK_MEMORY_HEAP_DEVICE_LOCAL_BIT) == 0) continue;
    const VmaBudget& budget = budgets[heap];
    info.total_bytes += properties->memoryHeaps[heap].size;
    info.free_bytes += budget.budget > budget.usage ? budget.budget - budget.usage : 0;
  }
  return info;
}

}  // namespace q8ta::vulkan
