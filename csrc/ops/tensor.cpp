#include "ops/tensor.h"

#include <algorithm>
#include <array>
#include <memory>

namespace q8ta::ops {
namespace {

using torch::stable::detail::from;
using torch::stable::detail::to;

template <typename Result, size_t count>
Result call(const char* op, std::array<StableIValue, count> stack) {
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher(op, "", stack.data(), TORCH_ABI_VERSION));
  return to<Result>(stack[0]);
}

}  // namespace

int64_t version_of(const Tensor& tensor) {
  if (call<bool, 1>("aten::is_inference", {from(tensor)})) return 0;
  return call<int64_t, 1>("aten::_version", {from(tensor)});
}

int64_t bytes_from_first_element(const Tensor& tensor) {
  int64_t bytes = 0;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_storage_size(tensor.get(), &bytes));
  return bytes - tensor.storage_offset() * static_cast<int64_t>(tensor.element_size());
}

Tensor empty_cpu(const std::vector<int64_t>& sizes, ScalarType type) {
  std::vector<int64_t> strides(sizes.size());
  int64_t stride = 1;
  for (size_t i = sizes.size(); i-- > 0;) {
    strides[i] = stride;
    stride *= std::max<int64_t>(sizes[i], 1);
  }
  const auto dtype = to<int32_t>(from(type));
  AtenTensorHandle handle = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(static_cast<int64_t>(sizes.size()), sizes.data(),
                                                  strides.data(), dtype, aoti_torch_device_type_cpu(), 0,
                                                  &handle));
  return Tensor(handle);
}

Tensor made_contiguous(const Tensor& tensor) {
  return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor);
}

std::string take_string(StringHandle handle) {
  const auto remove = [](StringHandle owned) { torch_delete_string(owned); };
  const std::unique_ptr<StringOpaque, decltype(remove)> owner(handle, remove);
  size_t length = 0;
  const char* data = nullptr;
  TORCH_ERROR_CODE_CHECK(torch_string_length(handle, &length));
  TORCH_ERROR_CODE_CHECK(torch_string_c_str(handle, &data));
  return {data, length};
}

Tensor int_mm(const Tensor& a, const Tensor& b) {
  return call<Tensor, 2>("aten::_int_mm", {from(a), from(b)});
}

}  // namespace q8ta::ops
