#include "device.h"

#include <cstdlib>
#include <stdexcept>

#include "kernels/layout.h"
#include "kernels/linear.h"
#include "vulkan/context.h"
#include "vulkan/device_stream.h"
#include "vulkan/selection.h"

namespace q8ta::test {

vulkan::Device& device() {
  static vulkan::Device& chosen = []() -> vulkan::Device& {
    const char* named = std::getenv("Q8TA_DEVICE");
    vulkan::set_request(vulkan::DeviceRequest{named == nullptr ? "llvmpipe" : named, {}});
    vulkan::Device* device = vulkan::current_selection()->device;
    if (device == nullptr) throw std::runtime_error("Q8TA_DEVICE must name a Vulkan device");
    return *device;
  }();
  return chosen;
}

kernels::KernelFamily family_of(const vulkan::Device& device) {
  return kernels::choose_family(device.info(), {});
}

OnDevice::OnDevice(vulkan::Device& device, const Sample& sample)
    : weights(device, sample.weights.data(), sample.problem.N, sample.problem.K, /*packed=*/false),
      channels(device, sample.channels(), sample.problem.N) {}

std::vector<int8_t> run_linear(vulkan::Device& device, const Sample& sample, const OnDevice& on_device) {
  ExactBytes y(sample.y_bytes());
  kernels::run_linear(device, family_of(device), sample.problem, sample.problem.M, sample.x.data(),
                      on_device.weights, on_device.channels, [&]() -> void* { return y.data(); });
  return {y.data(), y.data() + y.size()};
}

PoolMemory::PoolMemory(vulkan::Device& device, size_t bytes) : block_(device.memory().allocate(bytes)) {}

PoolMemory::~PoolMemory() { block_->pool().free(block_); }

vulkan::BufferRange PoolMemory::range() const { return block_->buffer().range(); }

vulkan::BufferRange PoolMemory::range(size_t bytes) const {
  return range().subrange(0, vulkan::round_up(bytes, 4));
}

size_t x_memory(const Sample& sample) {
  return sample.problem.M == 1 ? static_cast<size_t>(kernels::padded_row_bytes(sample.problem.K))
                               : sample.x.size();
}

void upload_x(vulkan::Device& device, const Sample& sample, const PoolMemory& x) {
  device.stream().upload(sample.x.data(), sample.x.size(), x.range());
}

void queue_linear(vulkan::Device& device, const Sample& sample, const OnDevice& on_device,
                  const PoolMemory& x, const PoolMemory& y) {
  const kernels::LinearProblem& problem = sample.problem;
  device.stream().record([&](vulkan::Recorder& recorder) {
    const vulkan::BufferRange prepared =
        kernels::record_prepare_x(recorder, problem, {x.range(x_memory(sample)), 0});
    kernels::record_linear(recorder, family_of(device), problem,
                           {prepared, on_device.weights.rows(0, problem.N),
                            on_device.channels.channels(0, problem.N), y.range(sample.y_bytes())});
  });
}

std::vector<int8_t> download(vulkan::Device& device, const PoolMemory& memory, size_t bytes) {
  ExactBytes result(bytes);
  device.stream().download(memory.range(), bytes, result.data());
  return {result.data(), result.data() + bytes};
}

}  // namespace q8ta::test
