// What linear needs of its tensors, on whichever device it runs.
#pragma once

#include <memory>
#include <optional>

#include "kernels/linear_types.h"
#include "kernels/weight_cache.h"
#include "ops/linear_checks.h"
#include "ops/tensor.h"

namespace q8ta::ops {

/// Contiguous host copies (or the tensors themselves) of what belongs to each output channel.
class ChannelTensors {
 public:
  explicit ChannelTensors(const LinearArguments<Tensor>& arguments);

  kernels::HostChannels pointers() const;

 private:
  Tensor sums_, scales_;
  std::optional<Tensor> bias_;
};

Tensor empty_output(const LinearArguments<Tensor>& arguments);

/// Tells apart what the tensor has held.
kernels::ContentMark content_of(const Tensor& tensor);

/// What a cache needs so that it does not outlive a tensor that it knows only by address: null if the
/// tensor's storage is watched, else the tensor.
std::shared_ptr<void> watch(const Tensor& tensor);

}  // namespace q8ta::ops
