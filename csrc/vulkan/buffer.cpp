#include "vulkan/buffer.h"

#include <atomic>
#include <new>
#include <string>

#include "vulkan/device.h"
#include "vulkan/error.h"
#include "vulkan/fork.h"

namespace q8ta::vulkan {
namespace {

VkBufferCreateInfo storage_buffer_info(VkDeviceSize size) {
  VkBufferCreateInfo info{VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO};
  info.size = size;
  info.usage = VK_BUFFER_USAGE_STORAGE_BUFFER_BIT | VK_BUFFER_USAGE_TRANSFER_SRC_BIT |
               VK_BUFFER_USAGE_TRANSFER_DST_BIT;
  return info;
}

VmaAllocationCreateInfo allocation_info(MemoryUse use) {
  VmaAllocationCreateInfo info{};
  if (use == MemoryUse::shared) {
    // Preferred, so that other memory serves where this is full. Among several such types the driver's order
    // decides, as for memory that only the GPU touches: whether the host's reads are cached comes second.
    info.preferredFlags = kSharedMemory;
    info.flags = VMA_ALLOCATION_CREATE_MAPPED_BIT;  // without effect on memory that cannot be mapped
    return info;
  }
  info.usage =
      use == MemoryUse::download ? VMA_MEMORY_USAGE_AUTO_PREFER_HOST : VMA_MEMORY_USAGE_AUTO_PREFER_DEVICE;
  if (use == MemoryUse::upload) {
    info.flags = VMA_ALLOCATION_CREATE_MAPPED_BIT | VMA_ALLOCATION_CREATE_HOST_ACCESS_SEQUENTIAL_WRITE_BIT;
  } else if (use == MemoryUse::download) {
    info.flags = VMA_ALLOCATION_CREATE_MAPPED_BIT | VMA_ALLOCATION_CREATE_HOST_ACCESS_RANDOM_BIT;
  }
  return info;
}

/// The memory types whose heap could hold so much: Vulkan forbids asking for more than a heap has.
uint32_t memory_types_for(const Device& device, VkDeviceSize size) {
  const VkPhysicalDeviceMemoryProperties* properties = nullptr;
  vmaGetMemoryProperties(device.allocator(), &properties);
  uint32_t types = 0;
  for (uint32_t i = 0; i < properties->memoryTypeCount; ++i) {
    if (properties->memoryHeaps[properties->memoryTypes[i].heapIndex].size >= size) types |= 1U << i;
  }
  return types;
}

std::atomic<uint64_t> last_id{0};

}  // namespace

Buffer::Buffer(Device& device) : device_(&device), id_(++last_id) {}

Buffer::Buffer(Device& device, MemoryUse use, VkDeviceSize size)
    : device_(&device), id_(++last_id), size_(size) {
  const VkBufferCreateInfo buffer_info = storage_buffer_info(size);
  VmaAllocationCreateInfo memory_info = allocation_info(use);
  memory_info.memoryTypeBits = memory_types_for(device, size);
  VmaAllocationInfo allocated{};
  VkResult result = VK_ERROR_OUT_OF_DEVICE_MEMORY;
  try {
    if (memory_info.memoryTypeBits != 0) {
      result =
          vmaCreateBuffer(device.allocator(), &buffer_info, &memory_info, &buffer_, &allocation_, &allocated);
    }
  } catch (const std::bad_alloc&) {  // on the host, perhaps when the buffer was there already
    device.api().vkDestroyBuffer(device.handle(), buffer_, nullptr);
    throw;
  }
  if (result != VK_SUCCESS) {
    const std::string message = "could not allocate " + std::to_string(size) + " bytes on " +
                                device.info().name + ": " + result_name(result);
    if (result == VK_ERROR_OUT_OF_DEVICE_MEMORY || result == VK_ERROR_OUT_OF_HOST_MEMORY ||
        result == VK_ERROR_TOO_MANY_OBJECTS) {
      throw OutOfMemory(message);
    }
    throw Error(message);
  }
  VkMemoryPropertyFlags properties = 0;
  vmaGetMemoryTypeProperties(device.allocator(), allocated.memoryType, &properties);
  if (use == MemoryUse::shared && (properties & VK_MEMORY_PROPERTY_HOST_COHERENT_BIT) == 0) return;
  mapped_ = static_cast<std::byte*>(allocated.pMappedData);
}

Buffer::~Buffer() {
  // A child has no business with its parent's device, whose driver threads it does not have.
  if (inherited_by_fork()) return;
  if (allocation_ != VK_NULL_HANDLE) {
    vmaDestroyBuffer(device_->allocator(), buffer_, allocation_);
    return;
  }
  if (buffer_ != VK_NULL_HANDLE) device_->api().vkDestroyBuffer(device_->handle(), buffer_, nullptr);
  if (imported_ != VK_NULL_HANDLE) device_->api().vkFreeMemory(device_->handle(), imported_, nullptr);
}

Buffer::Buffer(Buffer&& other) noexcept { swap(other); }

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  Buffer taken(std::move(other));
  swap(taken);
  return *this;
}

void Buffer::swap(Buffer& other) noexcept {
  std::swap(device_, other.device_);
  std::swap(id_, other.id_);
  std::swap(buffer_, other.buffer_);
  std::swap(size_, other.size_);
  std::swap(allocation_, other.allocation_);
  std::swap(imported_, other.imported_);
  std::swap(mapped_, other.mapped_);
}

std::optional<Buffer> Buffer::import_host(Device& device, void* pointer, VkDeviceSize size) {
  const DeviceInfo& info = device.info();
  const auto address = reinterpret_cast<std::uintptr_t>(pointer);
  if (!info.host_import || address % info.host_import_alignment != 0 ||
      size % info.host_import_alignment != 0) {
    return std::nullopt;
  }
  const VolkDeviceTable& api = device.api();
  constexpr auto kHandleType = VK_EXTERNAL_MEMORY_HANDLE_TYPE_HOST_ALLOCATION_BIT_EXT;

  VkMemoryHostPointerPropertiesEXT pointer_properties{VK_STRUCTURE_TYPE_MEMORY_HOST_POINTER_PROPERTIES_EXT};
  if (api.vkGetMemoryHostPointerPropertiesEXT(device.handle(), kHandleType, pointer, &pointer_properties) !=
      VK_SUCCESS) {
    return std::nullopt;
  }

  Buffer buffer(device);
  buffer.size_ = size;
  VkExternalMemoryBufferCreateInfo external{VK_STRUCTURE_TYPE_EXTERNAL_MEMORY_BUFFER_CREATE_INFO};
  external.handleTypes = kHandleType;
  VkBufferCreateInfo buffer_info = storage_buffer_info(size);
  buffer_info.pNext = &external;
  VkBuffer handle = VK_NULL_HANDLE;
  if (api.vkCreateBuffer(device.handle(), &buffer_info, nullptr, &handle) != VK_SUCCESS) return std::nullopt;
  buffer.buffer_ = handle;
  VkMemoryRequirements requirements{};
  api.vkGetBufferMemoryRequirements(device.handle(), buffer.buffer_, &requirements);
  const std::optional<uint32_t> type =
      device.find_memory_type(pointer_properties.memoryTypeBits & requirements.memoryTypeBits,
                              VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT);
  if (!type || requirements.size > size) return std::nullopt;

  VkImportMemoryHostPointerInfoEXT import_info{VK_STRUCTURE_TYPE_IMPORT_MEMORY_HOST_POINTER_INFO_EXT};
  import_info.handleType = kHandleType;
  import_info.pHostPointer = pointer;
  VkMemoryAllocateInfo memory_info{VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO};
  memory_info.pNext = &import_info;
  memory_info.allocationSize = size;
  memory_info.memoryTypeIndex = *type;
  VkDeviceMemory imported = VK_NULL_HANDLE;
  if (api.vkAllocateMemory(device.handle(), &memory_info, nullptr, &imported) != VK_SUCCESS) {
    return std::nullopt;
  }
  buffer.imported_ = imported;
  if (api.vkBindBufferMemory(device.handle(), buffer.buffer_, imported, 0) != VK_SUCCESS) return std::nullopt;
  return buffer;
}

void Buffer::flush(VkDeviceSize offset, VkDeviceSize bytes) const {
  check(vmaFlushAllocation(device_->allocator(), allocation_, offset, bytes), "vmaFlushAllocation");
}

void Buffer::invalidate(VkDeviceSize offset, VkDeviceSize bytes) const {
  check(vmaInvalidateAllocation(device_->allocator(), allocation_, offset, bytes), "vmaInvalidateAllocation");
}

}  // namespace q8ta::vulkan
