#pragma once

#include <memory>
#include <vector>

#include "vulkan/buffer.h"

namespace q8ta::vulkan {

/// Hands out pieces of buffers for one submission, all given back at once by reset(). Grows when a submission
/// needs more, and keeps some of it for the next one.
class Arena {
 public:
  Arena(Device& device, MemoryUse use) : device_(device), use_(use) {}

  struct Piece {
    BufferRange range;
    const Buffer* buffer = nullptr;

    std::byte* mapped() const { return buffer->mapped() + range.offset; }
    void flush() const { buffer->flush(range.offset, range.size); }
    void invalidate() const { buffer->invalidate(range.offset, range.size); }
  };

  /// `bytes` are rounded up to a whole int32 word; the offset suits a storage buffer binding.
  Piece allocate(VkDeviceSize bytes);

  /// Only when the GPU is done with every piece.
  void reset();

 private:
  Device& device_;
  MemoryUse use_;
  std::vector<std::unique_ptr<Buffer>> blocks_;  // pieces come from the last one; pointers stay valid
  VkDeviceSize used_ = 0;                        // of the last block
};

}  // namespace q8ta::vulkan
