// The pybind11 module q8ta_ops._C: devices, selection, profile, cache and validation. Private;
// q8ta_ops.runtime is its public face.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <chrono>
#include <deque>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <tuple>
#include <vector>

#include "bindings/storage_watcher.h"
#include "kernels/host_gemm.h"
#include "kernels/host_weight_cache.h"
#include "kernels/kernel_family.h"
#include "kernels/linear_candidates.h"
#include "kernels/linear_choice.h"
#include "kernels/seeded_faults.h"
#include "kernels/self_test.h"
#include "kernels/tuning_file.h"
#include "kernels/warning.h"
#include "kernels/weight_cache.h"
#include "vulkan/context.h"
#include "vulkan/driver_fault.h"
#include "vulkan/error.h"
#include "vulkan/profiler.h"
#include "vulkan/selection.h"
#include "vulkan/stream_pool.h"
#include "vulkan/validation.h"

namespace py = pybind11;

namespace q8ta {
namespace {

py::dict describe(const vulkan::DeviceInfo& info) {
  py::list shapes;
  for (const auto& shape : info.cooperative_matrix_int8)
    shapes.append(py::make_tuple(shape.M, shape.N, shape.K));
  const kernels::KernelFamily family = kernels::choose_family(info, {});
  using namespace pybind11::literals;
  return py::dict(
      "index"_a = info.index, "name"_a = info.name, "driver"_a = info.driver, "type"_a = info.type_name(),
      "api_version"_a = std::to_string(VK_API_VERSION_MAJOR(info.api_version)) + "." +
                        std::to_string(VK_API_VERSION_MINOR(info.api_version)) + "." +
                        std::to_string(VK_API_VERSION_PATCH(info.api_version)),
      "unusable_because"_a = info.unusable_because, "host_visible_memory"_a = info.host_visible_memory,
      "features"_a = py::dict("int_dot"_a = info.int_dot, "int_dot_accelerated"_a = info.int_dot_accelerated,
                              "subgroup_arithmetic"_a = info.subgroup_arithmetic,
                              "subgroup_shuffle"_a = info.subgroup_shuffle,
                              "subgroup_size"_a = info.subgroup_size, "cooperative_matrix_int8"_a = shapes,
                              "host_import"_a = info.host_import, "unified_memory"_a = info.unified_memory,
                              "max_binding_bytes"_a = info.limits.maxStorageBufferRange,
                              "timestamps"_a = info.timestamp_bits > 0),
      "gemv"_a = family.gemv_name(), "gemm"_a = family.gemm_name());
}

py::list devices() {
  py::list described;
  for (const vulkan::DeviceInfo& info : vulkan::Context::get().devices()) described.append(describe(info));
  return described;
}

py::object unavailable_because() {
  try {
    vulkan::Context::get();
    return py::none();
  } catch (const vulkan::Unavailable& error) {
    return py::str(error.what());
  }
}

py::tuple selection() {
  const auto current = vulkan::current_selection();
  const py::object index =
      current->device == nullptr ? py::object(py::none()) : py::int_(current->device->info().index);
  return py::make_tuple(index, current->reason);
}

void set_request(const std::optional<std::pair<std::string, std::vector<std::string>>>& request) {
  if (!request) {
    vulkan::set_request(std::nullopt);
    return;
  }
  vulkan::set_request(vulkan::DeviceRequest{request->first, request->second});
}

py::object current_request() {
  const auto request = vulkan::current_request();
  if (!request) return py::none();
  return py::make_tuple(request->device, request->disable);
}

void synchronize_if_open() {
  const py::gil_scoped_release release;
  vulkan::Context::synchronize_if_open();
}

py::list stop_profile() {
  std::vector<vulkan::DispatchRecord> stopped;
  {
    const py::gil_scoped_release release;
    stopped = vulkan::Context::stop_profile();
  }
  py::list records;
  for (const vulkan::DispatchRecord& record : stopped) {
    records.append(py::make_tuple(record.label.kernel, record.label.op, record.label.M, record.label.K,
                                  record.label.N, record.workgroups, record.gpu_us));
  }
  return records;
}

vulkan::Device& selected_device() {
  vulkan::Device* device = vulkan::current_selection()->device;
  if (device == nullptr) throw vulkan::Error("CPU tensors go to the host; this needs a Vulkan device");
  return *device;
}

double empty_submit_us(int iterations) {
  const vulkan::StreamPool::Lease stream = selected_device().streams().acquire();
  std::vector<double> times;
  for (int i = 0; i < std::max(iterations, 1); ++i) {
    stream->begin();
    const auto start = std::chrono::steady_clock::now();
    stream->submit();
    stream->wait();
    times.push_back(
        std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count());
  }
  std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
  return times[times.size() / 2];
}

std::mutex warnings_mutex;
std::deque<std::string> warnings;

/// Called by the interpreter's main thread between two instructions.
int deliver_warnings(void* /*unused*/) {
  for (;;) {
    std::string message;
    {
      const std::lock_guard lock(warnings_mutex);
      if (warnings.empty()) return 0;
      message = std::move(warnings.front());
      warnings.pop_front();
    }
    // Paths and drivers' names need not be UTF-8.
    const auto text = py::reinterpret_steal<py::object>(
        PyUnicode_DecodeUTF8(message.data(), static_cast<Py_ssize_t>(message.size()), "backslashreplace"));
    if (!text || PyErr_WarnFormat(PyExc_RuntimeWarning, 1, "%U", text.ptr()) < 0) return -1;
  }
}

/// Whoever warns may hold a lock that the GIL's holder waits for, so nobody waits for the GIL here.
void warn_later(const std::string& message) {
  {
    const std::lock_guard lock(warnings_mutex);
    warnings.push_back(message);
  }
  if (Py_IsInitialized() != 0) Py_AddPendingCall(&deliver_warnings, nullptr);
}

/// A problem on the device that CPU tensors go to, and how its kernel is chosen.
struct Choice {
  std::shared_ptr<const vulkan::Selection> selection = vulkan::current_selection();
  vulkan::Device& device = selected_device();
  kernels::LinearChoices& choices = kernels::LinearChoices::of(device);
  kernels::KernelFamily family =
      choices.with_lanes_known(kernels::choose_family(device.info(), selection->disabled));
  kernels::LinearProblem problem;

  explicit Choice(const std::tuple<uint32_t, uint32_t, uint32_t>& sizes, bool float_output = false,
                  bool weights_in_tiles = false) {
    std::tie(problem.M, problem.K, problem.N) = sizes;
    problem.float_output = float_output;
    if (weights_in_tiles) problem.weight_order = kernels::PackOrder::tiles;
  }

  std::vector<kernels::LinearPlan> candidates() const {
    return kernels::linear_candidates(device.info(), family, problem);
  }
};

using Sizes = std::tuple<uint32_t, uint32_t, uint32_t>;  // M, K, N

/// (variant, kernel, workgroups) of every plan worth trying.
std::vector<std::tuple<std::string, std::string, uint32_t>> linear_candidates(const Sizes& sizes,
                                                                              bool float_output,
                                                                              bool weights_in_tiles) {
  std::vector<std::tuple<std::string, std::string, uint32_t>> described;
  for (const kernels::LinearPlan& plan : Choice(sizes, float_output, weights_in_tiles).candidates()) {
    described.emplace_back(kernels::variant_of(plan), plan.kernel, plan.workgroups);
  }
  return described;
}

std::string find_difference(const Sizes& sizes, bool float_output, const std::string& variant,
                            bool weights_in_tiles) {
  const Choice choice(sizes, float_output, weights_in_tiles);
  for (const kernels::LinearPlan& plan : choice.candidates()) {
    if (kernels::variant_of(plan) != variant) continue;
    return kernels::find_difference(choice.device, plan, choice.problem);
  }
  throw std::invalid_argument("variant: no candidate is called '" + variant + "'");
}

/// The kernel for a problem, which has passed the self-test when this returns.
std::string tested_kernel(const Sizes& sizes) {
  const Choice choice(sizes);
  return choice.choices.get(choice.family, choice.problem).name;
}

std::vector<std::pair<std::string, std::string>> switched_off() {
  std::vector<std::pair<std::string, std::string>> off;
  for (const kernels::SwitchedOff& each : kernels::LinearChoices::of(selected_device()).switched_off()) {
    off.emplace_back(each.feature, each.evidence);
  }
  return off;
}

}  // namespace

PYBIND11_MODULE(_C, module) {
  // Threads may hold the GIL while others wait for the GPU: everything that can block releases it.
  using release = py::call_guard<py::gil_scoped_release>;
  py::register_exception<vulkan::Error>(module, "VulkanError", PyExc_RuntimeError);
  Py_AtExit(&vulkan::Context::leave_to_exit);  // before what drivers have registered for the process's end

  module.def("devices", &devices);
  module.def("unavailable_because", &unavailable_because);
  module.def("selection", &selection);
  module.def("set_request", &set_request, py::arg("request"));
  module.def("current_request", &current_request);

  // Work that is queued belongs to one side of the line or the other.
  module.def("start_profile", [] {
    synchronize_if_open();
    vulkan::Profiler::instance().start();
  });
  module.def("stop_profile", &stop_profile);
  module.def("empty_submit_us", &empty_submit_us, py::arg("iterations"), release());

  kernels::set_warning_handler(&warn_later);
  module.def("linear_candidates", &linear_candidates, py::arg("sizes"), py::arg("float_output"),
             py::arg("weights_in_tiles") = false, release());
  module.def("find_difference", &find_difference, py::arg("sizes"), py::arg("float_output"),
             py::arg("variant"), py::arg("weights_in_tiles") = false, release());
  module.def("tested_kernel", &tested_kernel, py::arg("sizes"), release());
  module.def("switched_off", &switched_off, release());
  module.def(
      "prefer_linear",
      [](const Sizes& sizes, bool float_output, const std::string& variant) {
        const Choice choice(sizes, float_output);
        choice.choices.prefer(choice.family, choice.problem, variant);
      },
      py::arg("sizes"), py::arg("float_output"), py::arg("variant"), release());
  module.def("tuning_file", [] { return kernels::TuningFile::path().string(); });
  module.def(
      "tuned_classes", [] { return kernels::LinearChoices::of(selected_device()).tuned_classes(); },
      release());
  // For tests.
  module.def("seed_driver_fault", &vulkan::seed_driver_fault, py::arg("fault"), py::arg("shader"));

  module.def("watch_storages", &watch_storages, py::arg("take_tensors"));
  module.def(
      "clear_weight_cache",
      [] {
        kernels::HostWeightCache::instance().clear();
        kernels::WeightCache::instance().clear();
      },
      release());
  module.def(
      "weight_cache_bytes",
      [] { return kernels::HostWeightCache::instance().bytes() + kernels::WeightCache::instance().bytes(); },
      release());

  // For tests: the instruction sets of the host kernel that this processor has, and forcing one of them.
  module.def("_host_variants", &kernels::host_variants, release());
  module.def("_host_variant", &kernels::host_variant, release());
  module.def("_force_host_variant", &kernels::force_host_variant, py::arg("name"), release());

  module.def(
      "close",
      [] {
        vulkan::forget_selection();
        kernels::WeightCache::instance().clear();
        vulkan::Context::close_if_validating();
      },
      release());
  module.def("validation_messages", &vulkan::validation_messages);
  module.def(
      "seed_validation_fault",
      [](const std::string& kind) { kernels::seed_validation_fault(selected_device(), kind); }, release());
}

}  // namespace q8ta
