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

}  // namespace

DeviceWeights::DeviceWeights(vulkan::Device& device, const int8_t* weights, int64_t N, int64_t K, bool packed,
                             PackOrder order)
    : K_(K),
      order_(order),
      buffer_(device, vulkan::MemoryUse::device_local,
              static_cast<VkDeviceSize>(4 * packed_words({1, N, K}, order))) {
  // Several submissions, so that neither the staging memory nor a binding nor a watchdog sees all of a big
  // matrix.
  const int64_t source_row_bytes = packed ? padded_row_bytes(K) : K;
  const int64_t chunk_rows = std::max(kSlabRows, kStagedBytes / source_row_bytes / kSlabRows * kSlabRows);
  const vulkan::StreamPool::Lease stream = device.streams().acquire();
  for (int64_t first = 0; first < N; first += chunk_rows) {
    const int64_t chunk = std::min(chunk_rows, N - first);
    const vulkan::BufferRange destination = rows(first, chunk);
    stream->begin();
    const vulkan::ByteRange source =
        stream->upload(weights + first * source_row_bytes, static_cast<size_t>(chunk * source_row_bytes));
    if (packed && order == PackOrder::padded_rows) {
      stream->copy(source.bytes(destination.size), destination,
                   {"weights", "copy", static_cast<uint32_t>(chunk), static_cast<uint32_t>(K), 0});
    } else {
      record_pack(*stream, source, {1, chunk, source_row_bytes}, order, destination, "weights");
    }
    stream->submit();
    stream->wait();
  }
}

vulkan::BufferRange DeviceWeights::rows(int64_t first, int64_t count) const {
  const auto bytes = [&](int64_t rows) {
    return static_cast<VkDeviceSize>(4 * packed_words({1, rows, K_}, order_));
  };
  return buffer_.range().subrange(bytes(first), bytes(count));
}

DeviceChannels::DeviceChannels(vulkan::Device& device, const HostChannels& channels, int64_t N)
    : weight_sums_(channels.weight_sums, channels.weight_sums + N),
      weight_scales_(channels.weight_scales, channels.weight_scales + N),
      bias_(channels.bias, channels.bias == nullptr ? nullptr : channels.bias + N),
      array_bytes_(vulkan::round_up(static_cast<VkDeviceSize>(N) * 4, device.binding_alignment())),
      buffer_(device, vulkan::MemoryUse::upload, array_bytes_ * (bias_.empty() ? 2 : 3)) {
  std::byte* destination = buffer_.mapped();
  const size_t bytes = weight_sums_.size() * 4;
  std::memcpy(destination, weight_sums_.data(), bytes);
  std::memcpy(destination + array_bytes_, weight_scales_.data(), bytes);
  if (!bias_.empty()) std::memcpy(destination + 2 * array_bytes_, bias_.data(), bytes);
  buffer_.flush(0, buffer_.size());
}

bool DeviceChannels::same_as(const HostChannels& channels) const {
  const size_t bytes = weight_sums_.size() * sizeof(int32_t);
  return bias_.empty() == (channels.bias == nullptr) &&
         std::memcmp(weight_sums_.data(), channels.weight_sums, bytes) == 0 &&
         std::memcmp(weight_scales_.data(), channels.weight_scales, bytes) == 0 &&
         (bias_.empty() || std::memcmp(bias_.data(), channels.bias, bytes) == 0);
}

ChannelBuffers DeviceChannels::channels(int64_t first, int64_t count) const {
  const auto array = [&](VkDeviceSize index) {
    return buffer_.range().subrange(index * array_bytes_ + static_cast<VkDeviceSize>(first) * 4,
                                    static_cast<VkDeviceSize>(count) * 4);
  };
  return {array(0), array(1), array(bias_.empty() ? 1 : 2)};
}

}  // namespace q8ta::kernels
