#include "kernels/weights.h"

#include <algorithm>
#include <cstring>

#include "kernels/layout.h"
#include "kernels/pack.h"
#include "vulkan/device.h"
#include "vulkan/stream_pool.h"

namespace q8ta::kernels {
namespace {

constexpr int64_t kStagedBytes = int64_t{16} << 20;

struct Channel {
  int32_t weight_sum;
  float weight_scale;
  float bias;
  int32_t unused;
};

}  // namespace

DeviceWeights::DeviceWeights(vulkan::Device& device, const int8_t* weights, int64_t N, int64_t K, bool packed)
    : row_bytes_(weight_row_bytes(K)),
      buffer_(device, vulkan::MemoryUse::device_local, static_cast<VkDeviceSize>(N * row_bytes_)) {
  // Several submissions, so that neither the staging memory nor a binding nor a watchdog sees all of a big
  // matrix.
  const int64_t source_row_bytes = packed ? row_bytes_ : K;
  const int64_t chunk_rows = std::max(kSlabRows, kStagedBytes / source_row_bytes / kSlabRows * kSlabRows);
  const vulkan::StreamPool::Lease stream = device.streams().acquire();
  for (int64_t first = 0; first < N; first += chunk_rows) {
    const int64_t chunk = std::min(chunk_rows, N - first);
    stream->begin();
    const vulkan::ByteRange source =
        stream->upload(weights + first * source_row_bytes, static_cast<size_t>(chunk * source_row_bytes));
    if (packed) {
      stream->copy(source.bytes(static_cast<VkDeviceSize>(chunk * row_bytes_)), rows(first, chunk),
                   {"weights", "copy", static_cast<uint32_t>(chunk), static_cast<uint32_t>(K), 0});
    } else {
      record_pack(*stream, source, {1, chunk, K}, PackOrder::weights, rows(first, chunk), "weights");
    }
    stream->submit();
    stream->wait();
  }
}

vulkan::BufferRange DeviceWeights::rows(int64_t first, int64_t count) const {
  return buffer_.range().subrange(static_cast<VkDeviceSize>(first * row_bytes_),
                                  static_cast<VkDeviceSize>(count * row_bytes_));
}

DeviceChannels::DeviceChannels(vulkan::Device& device, const HostChannels& channels, int64_t N)
    : weight_sums_(channels.weight_sums, channels.weight_sums + N),
      weight_scales_(channels.weight_scales, channels.weight_scales + N),
      bias_(channels.bias, channels.bias == nullptr ? nullptr : channels.bias + N),
      buffer_(device, vulkan::MemoryUse::upload, static_cast<VkDeviceSize>(N) * sizeof(Channel)) {
  std::byte* destination = buffer_.mapped();
  for (int64_t n = 0; n < N; ++n) {
    const Channel channel{weight_sums_[n], weight_scales_[n], bias_.empty() ? 0.0F : bias_[n], 0};
    std::memcpy(destination + n * sizeof(Channel), &channel, sizeof(Channel));
  }
  buffer_.flush(0, buffer_.size());
}

bool DeviceChannels::same_as(const HostChannels& channels) const {
  const size_t bytes = weight_sums_.size() * sizeof(int32_t);
  return bias_.empty() == (channels.bias == nullptr) &&
         std::memcmp(weight_sums_.data(), channels.weight_sums, bytes) == 0 &&
         std::memcmp(weight_scales_.data(), channels.weight_scales, bytes) == 0 &&
         (bias_.empty() || std::memcmp(bias_.data(), channels.bias, bytes) == 0);
}

vulkan::BufferRange DeviceChannels::channels(int64_t first, int64_t count) const {
  return buffer_.range().subrange(static_cast<VkDeviceSize>(first) * sizeof(Channel),
                                  static_cast<VkDeviceSize>(count) * sizeof(Channel));
}

}  // namespace q8ta::kernels
