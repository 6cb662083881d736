#include "kernels/linear.h"

#include <algorithm>
#include <array>
#include <optional>

#include "kernels/linear_choice.h"
#include "kernels/linear_dispatch.h"
#include "kernels/pack.h"
#include "vulkan/stream_pool.h"

namespace q8ta::kernels {
namespace {

constexpr int64_t kStagedBytes = int64_t{16} << 20;  // of x or y in one submission
constexpr int64_t kSlabColumns = int64_t{1} << 20;   // of y in one dispatch
// One submission of a slow integrated GPU (0.5 TMAC/s) then stays far below the 2 s of common watchdogs.
constexpr int64_t kMultipliesInSubmission = int64_t{1} << 36;

int64_t element_bytes(const LinearProblem& problem) { return problem.float_output ? 4 : 1; }

int64_t chunk_rows(const LinearProblem& problem, int64_t M) {
  const int64_t K = problem.K;
  const int64_t N = problem.N;
  const int64_t rows = std::min(
      {kStagedBytes / K, kStagedBytes / (N * element_bytes(problem)), kMultipliesInSubmission / (N * K)});
  return std::min(std::max<int64_t>(rows / 4 * 4, 4), M);
}

/// Columns of y: where their rows start in the chunk's part of y, and how they are spaced, in bytes.
struct Output {
  size_t first, row_bytes, rows, stride;
};

/// Records one dispatch for each slab of columns.
template <typename RecordSlab>
void for_each_slab(const vulkan::Device& device, const LinearProblem& problem, RecordSlab record_slab) {
  const int64_t columns = slab_columns(device, problem.K);
  const int64_t bytes = element_bytes(problem);
  for (int64_t first = 0; first < problem.N; first += columns) {
    LinearProblem slab = problem;
    slab.N = static_cast<uint32_t>(std::min<int64_t>(columns, problem.N - first));
    record_slab(first, slab,
                Output{static_cast<size_t>(first * bytes), static_cast<size_t>(slab.N * bytes), problem.M,
                       static_cast<size_t>(problem.N * bytes)});
  }
}

void record_slabs(vulkan::Stream& stream, const KernelFamily& family, const LinearProblem& problem,
                  const int8_t* x, const DeviceWeights& weights, const DeviceChannels& channels) {
  const int64_t bytes = int64_t{problem.M} * problem.K;
  // The GEMV reads whole chunks of 16 bytes.
  const int64_t readable = problem.M == 1 ? padded_row_bytes(problem.K) : bytes;
  const vulkan::BufferRange prepared = record_prepare_x(
      stream, problem, stream.upload(x, static_cast<size_t>(bytes), static_cast<size_t>(readable)));
  for_each_slab(
      stream.device(), problem, [&](int64_t first, const LinearProblem& slab, const Output& output) {
        record_linear(stream, family, slab,
                      {prepared, weights.rows(first, slab.N), channels.channels(first, slab.N),
                       stream.download(output.first, output.row_bytes, output.rows, output.stride)});
      });
}

}  // namespace

int64_t slab_columns(const vulkan::Device& device, int64_t K) {
  const int64_t row_bytes = 4 * packed_row_words(K, PackOrder::tiles);  // not less than in rows
  const auto limit = static_cast<int64_t>(device.max_binding_bytes());
  return std::clamp(limit / row_bytes / kSlabRows * kSlabRows, kSlabRows, kSlabColumns);
}

vulkan::BufferRange record_prepare_x(vulkan::Recorder& recorder, const LinearProblem& problem,
                                     const vulkan::ByteRange& x) {
  if (problem.M == 1) return x.range;
  const Matrices matrix{1, problem.M, problem.K};
  if (padded_row_bytes(problem.K) == problem.K && x.first_byte == 0) {
    return x.bytes(static_cast<VkDeviceSize>(matrix.bytes()));
  }
  const vulkan::BufferRange rows =
      recorder.scratch(static_cast<VkDeviceSize>(4 * packed_words(matrix, PackOrder::padded_rows)));
  record_pack(recorder, x, matrix, PackOrder::padded_rows, rows, problem.op);
  return rows;
}

void record_linear(vulkan::Recorder& recorder, const KernelFamily& family, const LinearProblem& problem,
                   const LinearBuffers& buffers) {
  record_linear(recorder, LinearChoices::of(recorder.device()).get(family, problem), problem, buffers);
}

void record_linear(vulkan::Recorder& recorder, const LinearKernel& kernel, const LinearProblem& problem,
                   const LinearBuffers& buffers) {
  const bool row_major = problem.M == 1 || problem.N % 4 == 0 || problem.float_output;
  if (row_major) {
    record_linear_dispatch(recorder, kernel, problem, buffers);
    return;
  }
  const Matrices matrix{1, problem.M, problem.N};
  LinearBuffers packed = buffers;
  packed.y = recorder.scratch(static_cast<VkDeviceSize>(4 * packed_words(matrix, PackOrder::rows_4w)));
  record_linear_dispatch(recorder, kernel, problem, packed);
  record_unpack(recorder, packed.y, matrix, PackOrder::rows_4w, buffers.y, problem.op);
}

void run_linear(vulkan::Device& device, const KernelFamily& family, LinearProblem problem, int64_t M,
                const int8_t* x, const DeviceWeights& weights, const DeviceChannels& channels,
                const std::function<void*()>& output) {
  const int64_t rows = chunk_rows(problem, M);
  const int64_t y_row_bytes = problem.N * element_bytes(problem);
  // Shared memory can be written without a copy, if it is known when the work is recorded.
  std::byte* y = device.info().unified_memory ? static_cast<std::byte*>(output()) : nullptr;
  // Two streams: while the GPU works on one chunk of rows, the host copies the next one in.
  std::array<std::optional<vulkan::StreamPool::Lease>, 2> streams;
  int64_t chunk = 0;
  for (int64_t first = 0; first < M; first += rows, ++chunk) {
    std::optional<vulkan::StreamPool::Lease>& stream = streams[chunk % 2];
    if (stream) {
      (*stream)->wait();
    } else {
      stream.emplace(device.streams().acquire());
    }
    problem.M = static_cast<uint32_t>(std::min(rows, M - first));
    (*stream)->begin();
    if (y != nullptr) (*stream)->set_destination(y + first * y_row_bytes);
    record_slabs(**stream, family, problem, x + first * problem.K, weights, channels);
    (*stream)->submit();
    if (y == nullptr) {
      y = static_cast<std::byte*>(output());
      (*stream)->set_destination(y);
    }
  }
  for (int64_t i = 0; i < 2; ++i) {  // in order of submission, so that a profile lists the chunks in order
    std::optional<vulkan::StreamPool::Lease>& stream = streams[(chunk + i) % 2];
    if (stream) (*stream)->wait();
  }
}

}  // namespace q8ta::kernels
