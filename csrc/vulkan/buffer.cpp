#include "vulkan/buffer.h"

#include <atomic>
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
  info.usage =
      use == MemoryUse::download ? VMA_MEMORY_USAGE_AUTO_PREFER_HOST : VMA_MEMORY_USAGE_AUTO_PREFER_DEVICE;
  if (use == MemoryUse::upload) {
    info.flags = VMA_ALLOCATION_CREATE_MAPPED_BIT | VMA_ALLOCATION_CREATE_HOST_ACCESS_SEQUENTIAL_WRITE_BIT;
  } else if (use == MemoryUse::download) {
    info.flags = VMA_ALLOCATION_CREATE_MAPPED_BIT | VMA_ALLOCATION_CREATE_HOST_ACCESS_RANDOM_BIT;
  }
  return info;
}

std::atomic<uint64_t> last_id{0};

}  // namespace

Buffer::Buffer(Device& device) : device_(&device), id_(++last_id) {}

Buffer::Buffer(Device& device, MemoryUse use, VkDeviceSize size)
    : device_(&device), id_(++last_id), size_(size) {
  const VkBufferCreateInfo buffer_info = storage_buffer_info(size);
  const VmaAllocationCreateInfo memory_info = allocation_info(use);
  VmaAllocationInfo allocated{};
  const VkResult result =
      vmaCreateBuffer(device.allocator(), &buffer_info, &memory_info, &buffer_, &allocation_, &allocated);
  if (result != VK_SUCCESS) {
    const std::string message = "could not allocate " + std::to_string(size) + " bytes on " +
                                device.info().name + ": " + result_name(result);
    if (result == VK_ERROR_OUT_OF_DEVICE_MEMORY || result == VK_ERROR_OUT_OF_HOST_MEMORY) {
      throw OutOfMemory(message);
    }
    throw Error(message);
  }
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
  if (api.vkCreateBuffer(device.handle(), &buffer_info, nullptr, &buffer.buffer_) != VK_SUCCESS) {
    return std::nullopt;
  }
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
  if (api.vkAllocateMemory(device.handle(), &memory_info, nullptr, &buffer.imported_) != VK_SUCCESS ||
      api.vkBindBufferMemory(device.handle(), buffer.buffer_, buffer.imported_, 0) != VK_SUCCESS) {
    return std::nullopt;
  }
  return buffer;
}

void Buffer::flush(VkDeviceSize offset, VkDeviceSize bytes) const {
  check(vmaFlushAllocation(device_->allocator(), allocation_, offset, bytes), "vmaFlushAllocation");
}

void Buffer::invalidate(VkDeviceSize offset, VkDeviceSize bytes) const {
  check(vmaInvalidateAllocation(device_->allocator(), allocation_, offset, bytes), "vmaInvalidateAllocation");
}

}  // namespace q8ta::vulkan
