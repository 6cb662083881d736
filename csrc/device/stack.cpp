#include "device/stack.h"

#include <Python.h>

#include <algorithm>

namespace q8ta::device {
namespace {

/// Whether torch needs the GIL to let go of it: the stack has the last reference besides the Python object.
bool is_left_to_python(const c10::IValue& value) {
  if (!value.isTensor()) return false;
  const at::Tensor& tensor = value.toTensor();
  return tensor.use_count() == 2 && tensor.unsafeGetTensorImpl()->pyobj_slot()->load_pyobj() != nullptr;
}

}  // namespace

void drop_arguments(torch::jit::Stack& stack, size_t count) {
  const auto first = stack.end() - static_cast<std::ptrdiff_t>(count);
  const bool several = std::count_if(first, stack.end(), is_left_to_python) > 1;
  if (!several || Py_IsInitialized() == 0) {
    stack.erase(first, stack.end());
    return;
  }
  const PyGILState_STATE state = PyGILState_Ensure();
  stack.erase(first, stack.end());
  PyGILState_Release(state);
}

}  // namespace q8ta::device
