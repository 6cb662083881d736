#include "vulkan/arena.h"

#include <algorithm>

#include "vulkan/device.h"

namespace q8ta::vulkan {
namespace {

constexpr VkDeviceSize kFirstBlock = VkDeviceSize{256} << 10;
constexpr VkDeviceSize kKeptBytes = VkDeviceSize{64} << 20;

}  // namespace

Arena::Piece Arena::allocate(VkDeviceSize bytes) {
  const VkDeviceSize size = round_up(std::max<VkDeviceSize>(bytes, 1), 4);
  const VkDeviceSize offset = round_up(used_, device_.binding_alignment());
  // GPU-assisted validation (1.3.239) compares accesses with the size of the buffer, not of the binding:
  // there each piece is a buffer of its own, and nothing behind a piece can be read unnoticed.
  const bool exact = device_.validation() == ValidationMode::gpu_assisted;
  if (exact || blocks_.empty() || offset + size > blocks_.back()->size()) {
    const VkDeviceSize grown = blocks_.empty() ? kFirstBlock : 2 * blocks_.back()->size();
    const VkDeviceSize block = exact ? size : std::max(std::min(grown, kKeptBytes), size);
    blocks_.push_back(std::make_unique<Buffer>(device_, use_, block));
    used_ = size;
    return {blocks_.back()->range().subrange(0, size), blocks_.back().get()};
  }
  used_ = offset + size;
  return {blocks_.back()->range().subrange(offset, size), blocks_.back().get()};
}

void Arena::reset() {
  used_ = 0;
  if (blocks_.size() > 1) blocks_.erase(blocks_.begin(), blocks_.end() - 1);
  if (!blocks_.empty() && blocks_.back()->size() > kKeptBytes) blocks_.clear();
}

}  // namespace q8ta::vulkan
