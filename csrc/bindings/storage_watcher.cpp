#include "bindings/storage_watcher.h"

#include <cstdint>
#include <memory>
#include <unordered_map>
#include <utility>

#include "kernels/host_weight_cache.h"
#include "kernels/weight_cache.h"

namespace py = pybind11;

namespace q8ta {
namespace {

/// Both live as long as the process, and belong to whoever holds the GIL.
struct State {
  py::object take_tensors;
  std::unordered_map<uintptr_t, py::weakref> watched;  // by the StorageImpl
};

State& state() {
  static State& instance = *std::make_unique<State>().release();
  return instance;
}

void forget(uintptr_t begin, size_t bytes) {
  const py::gil_scoped_release release;
  kernels::HostWeightCache::instance().forget(reinterpret_cast<const void*>(begin), bytes);  // NOLINT
  kernels::WeightCache::instance().forget(reinterpret_cast<const void*>(begin), bytes);      // NOLINT
}

void watch(void* tensor_handle) {
  py::list handles;
  handles.append(py::capsule(tensor_handle, static_cast<const char*>(nullptr)));
  const py::object tensor = py::list(state().take_tensors(handles))[0];
  const py::object storage = tensor.attr("untyped_storage")();
  const auto key = storage.attr("_cdata").cast<uintptr_t>();
  if (state().watched.contains(key)) return;
  const auto begin = storage.attr("data_ptr")().cast<uintptr_t>();
  const auto bytes = storage.attr("nbytes")().cast<size_t>();
  const py::cpp_function died([key, begin, bytes](const py::handle& /*reference*/) {
    state().watched.erase(key);
    forget(begin, bytes);
  });
  state().watched.emplace(key, py::weakref(storage, died));
}

bool call_watcher(void* tensor_handle) {
  if (Py_IsInitialized() == 0) return false;
  const py::gil_scoped_acquire gil;
  try {
    watch(tensor_handle);
    return true;
  } catch (py::error_already_set& error) {
    error.discard_as_unraisable("q8ta_ops: watching a weight's storage");
    return false;
  }
}

}  // namespace

void watch_storages(py::object take_tensors) {
  state().take_tensors = std::move(take_tensors);
  kernels::set_storage_watcher(&call_watcher);
}

}  // namespace q8ta
