#pragma once

#include <volk.h>

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "vulkan/buffer.h"

namespace q8ta::vulkan {

class Device;

/// The most storage buffers that a shader binds.
inline constexpr size_t kMaxBindings = 6;

/// Descriptor sets of storage buffers for one batch of work. The next batch gets the same ones, and writes
/// only those that bind something else: a set costs the host as much as the rest of a dispatch.
class DescriptorPool {
 public:
  explicit DescriptorPool(Device& device) : device_(device) {}
  ~DescriptorPool();
  DescriptorPool(const DescriptorPool&) = delete;
  DescriptorPool& operator=(const DescriptorPool&) = delete;

  /// Takes back all sets: the GPU must be done with them, and what was recorded with them must not be
  /// submitted again. About `sets` are wanted next.
  void reset(uint32_t sets);

  /// The next get() of so many bindings does not throw.
  void make_room(VkDescriptorSetLayout layout, size_t bindings);

  /// A set with the ranges at bindings 0, 1, ... Sets for as many bindings fit every pipeline: all layouts of
  /// that many are defined alike.
  VkDescriptorSet get(VkDescriptorSetLayout layout, std::span<const BufferRange> ranges);

 private:
  struct Set {
    VkDescriptorSet handle = VK_NULL_HANDLE;
    std::array<BufferRange, kMaxBindings> ranges;  // what it binds
  };
  struct SetsOfOneSize {
    std::vector<Set> sets;
    size_t used = 0;
  };

  VkDescriptorSet allocate(VkDescriptorSetLayout layout);
  VkResult allocate_from_last_pool(VkDescriptorSetLayout layout, VkDescriptorSet& set);
  void add_pool(uint32_t sets);

  Device& device_;
  std::array<SetsOfOneSize, kMaxBindings + 1> sets_;  // by number of bindings
  std::vector<VkDescriptorPool> pools_;               // new sets come from the last one
  uint32_t capacity_ = 0;                             // of the last one
  uint32_t allocated_ = 0;                            // from the last one
  uint32_t wanted_ = 0;
};

}  // namespace q8ta::vulkan
