#include "ops/linear_tensors.h"

namespace q8ta::ops {

ChannelTensors::ChannelTensors(const LinearArguments<Tensor>& arguments)
    : sums_(made_contiguous(arguments.weight_sums)), scales_(made_contiguous(arguments.weight_scales)) {
  if (arguments.bias) bias_ = made_contiguous(*arguments.bias);
}

kernels::HostChannels ChannelTensors::pointers() const {
  return {static_cast<const int32_t*>(sums_.const_data_ptr()),
          static_cast<const float*>(scales_.const_data_ptr()),
          bias_ ? static_cast<const float*>(bias_->const_data_ptr()) : nullptr};
}

Tensor empty_output(const LinearArguments<Tensor>& arguments) {
  return empty_cpu(output_sizes_of(arguments), arguments.float_output ? ScalarType::Float : ScalarType::Char);
}

kernels::ContentMark content_of(const Tensor& tensor) {
  int64_t last_element = 0;
  for (int64_t i = 0; i < tensor.dim(); ++i) last_element += (tensor.size(i) - 1) * tensor.stride(i);
  const auto bytes = static_cast<size_t>(last_element + 1) * tensor.element_size();
  return {version_of(tensor), kernels::sample_bytes(tensor.const_data_ptr(), bytes)};
}

std::shared_ptr<void> watch(const Tensor& tensor) {
  AtenTensorHandle handle = nullptr;
  if (const kernels::StorageWatcher watcher = kernels::storage_watcher()) {
    TORCH_ERROR_CODE_CHECK(aoti_torch_new_tensor_handle(tensor.get(), &handle));
    if (watcher(handle)) return nullptr;
  }
  TORCH_ERROR_CODE_CHECK(aoti_torch_new_tensor_handle(tensor.get(), &handle));
  return std::make_shared<Tensor>(handle);
}

}  // namespace q8ta::ops
