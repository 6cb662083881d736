#include "ops/tensor.h"

#include <array>

namespace q8ta::ops {
namespace {

using torch::stable::detail::from;
using torch::stable::detail::to;

template <typename Result, size_t count>
Result call(const char* op, std::array<StableIValue, count> stack) {
  STABLE_TORCH_ERROR_CODE_CHECK(torch_call_dispatcher(op, "", stack.data(), TORCH_ABI_VERSION));
  return to<Result>(stack[0]);
}

}  // namespace

int64_t version_of(const Tensor& tensor) {
  if (call<bool, 1>("aten::is_inference", {from(tensor)})) return 0;
  return call<int64_t, 1>("aten::_version", {from(tensor)});
}

Tensor made_contiguous(const Tensor& tensor) {
  return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor);
}

Tensor int_mm(const Tensor& a, const Tensor& b) {
  return call<Tensor, 2>("aten::_int_mm", {from(a), from(b)});
}

}  // namespace q8ta::ops
