// Inputs of linear in host memory, and what it must give: written from the specification, not from the
// kernels.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/linear_types.h"

namespace q8ta::test {

/// Random numbers, the same in every run.
class Numbers {
 public:
  explicit Numbers(uint64_t seed) : state_(seed * 0x9E37'79B9'7F4A'7C15U + 1) {}

  uint32_t next();
  /// 0 .. end - 1
  uint32_t below(uint32_t end) { return next() % end; }
  int8_t byte() { return static_cast<int8_t>(next()); }
  float between(float low, float high);

 private:
  uint64_t state_;
};

/// Heap memory that ends with its last byte and begins `offset` bytes behind an aligned address, so that a
/// sanitizer sees what is read behind it.
class ExactBytes {
 public:
  explicit ExactBytes(size_t size, size_t offset = 0)
      : memory_(std::make_unique<int8_t[]>(size + offset)), offset_(offset), size_(size) {}

  int8_t* data() { return memory_.get() + offset_; }
  const int8_t* data() const { return memory_.get() + offset_; }
  size_t size() const { return size_; }

 private:
  std::unique_ptr<int8_t[]> memory_;
  size_t offset_, size_;
};

struct Sizes {
  int64_t M, K, N;
};

/// What a sample varies besides its sizes.
struct Options {
  bool has_bias = true;
  bool relu = false;
  bool float_output = false;
  size_t offset = 0;       ///< of x and of the weights behind an aligned address
  int64_t row_stride = 0;  ///< of the weights; 0: K
  uint64_t seed = 1;
};

/// One call of linear.
struct Sample {
  Sample(const Sizes& sizes, const Options& options);

  /// y as linear must give it, from the definition.
  std::vector<int8_t> expected() const;

  kernels::HostChannels channels() const;
  size_t y_bytes() const;

  kernels::LinearProblem problem;  // its M, too
  int64_t row_stride;
  ExactBytes x;        // [M, K]
  ExactBytes weights;  // [N, K], rows row_stride apart
  std::vector<int32_t> weight_sums;
  std::vector<float> weight_scales;
  std::vector<float> bias;
};

}  // namespace q8ta::test
