// The Vulkan device that the tests run on, and linear on it.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/kernel_family.h"
#include "kernels/weights.h"
#include "samples.h"
#include "vulkan/device.h"
#include "vulkan/memory_pool.h"

namespace q8ta::test {

/// The one that Q8TA_DEVICE names; lavapipe if it names none.
vulkan::Device& device();

kernels::KernelFamily family_of(const vulkan::Device& device);

/// A sample's weights and parameters on a device.
struct OnDevice {
  OnDevice(vulkan::Device& device, const Sample& sample);

  kernels::DeviceWeights weights;
  kernels::DeviceChannels channels;
};

/// y by the way that CPU tensors go.
std::vector<int8_t> run_linear(vulkan::Device& device, const Sample& sample, const OnDevice& on_device);

/// Memory of a device's pool, free again at the end.
class PoolMemory {
 public:
  PoolMemory(vulkan::Device& device, size_t bytes);
  ~PoolMemory();
  PoolMemory(const PoolMemory&) = delete;
  PoolMemory& operator=(const PoolMemory&) = delete;

  vulkan::DeviceBlock& block() const { return *block_; }
  vulkan::BufferRange range() const;
  /// The part with these bytes, in whole words.
  vulkan::BufferRange range(size_t bytes) const;

 private:
  vulkan::DeviceBlock* block_;
};

/// Queues y = linear(x) on the device's stream, the way that vk tensors go.
void queue_linear(vulkan::Device& device, const Sample& sample, const OnDevice& on_device,
                  const PoolMemory& x, const PoolMemory& y);

/// Enough for x of a sample, which the GEMV reads behind its end.
size_t x_memory(const Sample& sample);

/// Copies x there.
void upload_x(vulkan::Device& device, const Sample& sample, const PoolMemory& x);

/// Bytes that the stream copies back, when everything before is done.
std::vector<int8_t> download(vulkan::Device& device, const PoolMemory& memory, size_t bytes);

}  // namespace q8ta::test
