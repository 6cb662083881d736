// The pybind11 module q8ta_ops._benchmark: what `python -m q8ta_ops bench` measures on a Vulkan device.
// Private; q8ta_ops.bench is its public face. Memory of the host comes as addresses of tensors.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "benchmark/linear_contestants.h"
#include "benchmark/roofs.h"
#include "vulkan/context.h"
#include "vulkan/error.h"
#include "vulkan/fork.h"

namespace py = pybind11;

namespace q8ta::benchmark {
namespace {

std::shared_ptr<const vulkan::Selection> device_selection() {
  std::shared_ptr<const vulkan::Selection> selection = vulkan::current_selection();
  if (selection->device == nullptr) throw vulkan::Error("the benchmark needs a Vulkan device");
  return selection;
}

/// What Python holds. Validation layers want devices destroyed at the end of the process, and nothing may be
/// left on them then: close_all() empties whatever Python still has.
class Handle {
 public:
  explicit Handle(std::unique_ptr<Contestant> contestant) : contestant_(std::move(contestant)) {
    const std::lock_guard lock(mutex());
    all().insert(this);
  }
  ~Handle() {
    const std::lock_guard lock(mutex());
    all().erase(this);
    drop();
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;

  Contestant& get() const {
    if (contestant_ == nullptr) throw vulkan::Error("the benchmark's devices are closed");
    return *contestant_;
  }

  static void close_all() {
    const std::lock_guard lock(mutex());
    for (Handle* handle : all()) handle->drop();
  }

 private:
  /// Nothing can be destroyed on a device that is gone, or that belongs to the parent process.
  void drop() {
    if (vulkan::Context::is_closed() || vulkan::inherited_by_fork()) static_cast<void>(contestant_.release());
    contestant_.reset();
  }

  static std::mutex& mutex() {
    static std::mutex mutex;
    return mutex;
  }
  static std::set<Handle*>& all() {
    static std::set<Handle*> handles;
    return handles;
  }

  std::unique_ptr<Contestant> contestant_;
};

std::unique_ptr<Handle> handle_of(std::unique_ptr<Contestant> contestant) {
  return std::make_unique<Handle>(std::move(contestant));
}

template <typename T>
const T* at(uintptr_t address) {
  return reinterpret_cast<const T*>(address);  // NOLINT: an address, not a value
}

HostBytes host_bytes(const std::pair<uintptr_t, size_t>& memory) {
  return {at<void>(memory.first), memory.second};
}

using Memory = std::pair<uintptr_t, size_t>;  // address and bytes
using Factory = std::unique_ptr<Contestant> (*)(const vulkan::Selection&, const LinearInputs&);

/// Defines a function that makes a contestant from the arguments of q8ta::linear.
void define_linear(py::module_& module, const char* name, Factory factory) {
  module.def(
      name,
      [factory](std::tuple<uint32_t, uint32_t, uint32_t> sizes, Memory x, Memory weights,
                uintptr_t weight_sums, uintptr_t weight_scales, uintptr_t bias, float input_scale,
                int32_t input_zero_point, double output_scale, int32_t output_zero_point, bool relu,
                bool float_output, size_t copies) {
        LinearInputs inputs;
        kernels::LinearProblem& problem = inputs.problem;
        std::tie(problem.M, problem.K, problem.N) = sizes;
        problem.quantization = {input_scale, input_zero_point, static_cast<float>(1.0 / output_scale),
                                output_zero_point};
        problem.has_bias = bias != 0;
        problem.relu = relu;
        problem.float_output = float_output;
        inputs.x = host_bytes(x);
        inputs.weights = host_bytes(weights);
        inputs.channels = {at<int32_t>(weight_sums), at<float>(weight_scales), at<float>(bias)};
        inputs.copies = copies;
        return handle_of(factory(*device_selection(), inputs));
      },
      py::kw_only(), py::arg("sizes"), py::arg("x"), py::arg("weights"), py::arg("weight_sums"),
      py::arg("weight_scales"), py::arg("bias"), py::arg("input_scale"), py::arg("input_zero_point"),
      py::arg("output_scale"), py::arg("output_zero_point"), py::arg("relu"), py::arg("float_output"),
      py::arg("copies"), py::call_guard<py::gil_scoped_release>());
}

std::optional<MemoryAccess> memory_access(const std::optional<std::pair<uint32_t, uint32_t>>& access) {
  if (!access) return std::nullopt;
  return MemoryAccess{access->first, access->second};
}

}  // namespace

PYBIND11_MODULE(_benchmark, module) {
  using release = py::call_guard<py::gil_scoped_release>;
  using OptionalAccess = std::optional<std::pair<uint32_t, uint32_t>>;

  py::class_<Handle>(module, "Contestant")
      .def_property_readonly("copies", [](const Handle& handle) { return handle.get().copies(); })
      .def_property_readonly("result_bytes", [](const Handle& handle) { return handle.get().result_bytes(); })
      .def(
          "fetch_result",
          [](const Handle& handle, size_t copy, uintptr_t result) {
            handle.get().fetch_result(copy, reinterpret_cast<void*>(result));  // NOLINT: an address
          },
          py::arg("copy"), py::arg("result"), release())
      .def(
          "time",
          [](const Handle& handle, uint32_t count, size_t copies, bool kernels_only) {
            const vulkan::Elapsed elapsed = handle.get().time(count, copies, kernels_only);
            return std::make_pair(elapsed.gpu_us, elapsed.wall_us);
          },
          py::arg("count"), py::arg("copies"), py::arg("kernels_only") = false, release())
      .def(
          "time_commands",
          [](const Handle& handle, uint32_t count) {
            std::vector<std::tuple<std::string, uint32_t, std::optional<double>>> times;
            for (const CommandTime& each : handle.get().time_commands(count)) {
              times.emplace_back(each.kernel, each.workgroups, each.gpu_us);
            }
            return times;
          },
          py::arg("count"), release());

  module.def("close_all", &Handle::close_all, release());
  define_linear(module, "linear", &make_linear);
  define_linear(module, "pull_request", &make_pull_request);

  module.def(
      "empty_dispatch", [] { return handle_of(make_empty_dispatch(*device_selection()->device)); },
      release());
  module.def(
      "read",
      [](Memory words, size_t total_bytes, size_t window_bytes, uint32_t threads, uint32_t loads) {
        return handle_of(make_read(*device_selection()->device, host_bytes(words), total_bytes, window_bytes,
                                   {threads, loads}));
      },
      py::kw_only(), py::arg("words"), py::arg("total_bytes"), py::arg("window_bytes"), py::arg("threads"),
      py::arg("loads"), release());
  module.def(
      "copy",
      [](Memory words, size_t bytes, OptionalAccess shader) {
        const std::optional<MemoryAccess> access = memory_access(shader);
        return handle_of(
            make_copy(*device_selection()->device, host_bytes(words), bytes, access ? &*access : nullptr));
      },
      py::kw_only(), py::arg("words"), py::arg("bytes"), py::arg("shader"), release());
  module.def(
      "dot4",
      [](uint32_t workgroups, uint32_t turns) {
        return handle_of(make_dot4(*device_selection(), workgroups, turns));
      },
      py::kw_only(), py::arg("workgroups"), py::arg("turns"), release());
  module.def(
      "cooperative_matrix",
      [](std::tuple<uint32_t, uint32_t, uint32_t> shape, uint32_t workgroups, uint32_t turns) {
        const auto [M, N, K] = shape;
        return handle_of(make_cooperative_matrix(*device_selection(), {M, N, K}, workgroups, turns));
      },
      py::kw_only(), py::arg("shape"), py::arg("workgroups"), py::arg("turns"), release());
}

}  // namespace q8ta::benchmark
