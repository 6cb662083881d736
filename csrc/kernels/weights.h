#pragma once

#include <cstdint>
#include <vector>

#include "kernels/linear_types.h"
#include "vulkan/buffer.h"

namespace q8ta::kernels {

/// int8 weights [N, K] on a device, in PackOrder::padded_rows, which every kernel reads, or in another order.
class DeviceWeights {
 public:
  /// `weights` are N * K contiguous bytes; or, if `packed`, N rows of padded_row_bytes(K), zero behind K,
  /// which are copied as they are if that is the order. Returns when they are on the device.
  DeviceWeights(vulkan::Device& device, const int8_t* weights, int64_t N, int64_t K, bool packed,
                PackOrder order = PackOrder::padded_rows);

  /// Rows first .. first + count - 1; first is a multiple of kSlabRows.
  vulkan::BufferRange rows(int64_t first, int64_t count) const;
  size_t bytes() const { return buffer_.size(); }

 private:
  int64_t K_;
  PackOrder order_;
  vulkan::Buffer buffer_;
};

/// Sum, scale and bias of every output channel on a device, beside the values they came from.
class DeviceChannels {
 public:
  /// Arrays of N values.
  DeviceChannels(vulkan::Device& device, const HostChannels& channels, int64_t N);

  ChannelBuffers channels(int64_t first, int64_t count) const;
  size_t bytes() const { return buffer_.size(); }

  /// True if these are the same bits (a comparison costs less than asking three tensors for their versions).
  bool same_as(const HostChannels& channels) const;

 private:
  std::vector<int32_t> weight_sums_;
  std::vector<float> weight_scales_;
  std::vector<float> bias_;  // empty: none
  VkDeviceSize array_bytes_;
  vulkan::Buffer buffer_;
};

/// Weights are read in slabs that start at multiples of this, so that every binding offset is aligned (256 is
/// the largest alignment that Vulkan allows; a channel has 4 bytes, an output 1).
inline constexpr int64_t kSlabRows = 256;

}  // namespace q8ta::kernels
