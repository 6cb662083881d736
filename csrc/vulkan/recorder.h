#pragma once

#include <initializer_list>
#include <span>

#include "vulkan/command.h"
#include "vulkan/profiler.h"

namespace q8ta::vulkan {

/// Bytes that a shader can read: they start `first_byte` bytes into `range`, whose own start suits a binding.
struct ByteRange {
  BufferRange range;
  uint32_t first_byte = 0;

  BufferRange bytes(VkDeviceSize count) const { return range.subrange(first_byte, count); }
};

/// What kernels record their work into: a Stream, which a call waits for, or a DeviceStream, which queues it.
class Recorder {
 public:
  virtual ~Recorder() = default;

  virtual Device& device() = 0;

  /// Records a dispatch, behind a barrier if earlier work is in conflict with it.
  virtual void dispatch(const Pipeline& pipeline, std::initializer_list<Binding> bindings,
                        std::span<const std::byte> push_constants, uint32_t workgroups,
                        const DispatchLabel& label) = 0;

  /// Records a copy of `from` to `to`, which has the same size.
  virtual void copy(const BufferRange& from, const BufferRange& to, const DispatchLabel& label) = 0;

  /// Device memory for intermediate results of one call.
  virtual BufferRange scratch(VkDeviceSize bytes) = 0;
};

}  // namespace q8ta::vulkan
