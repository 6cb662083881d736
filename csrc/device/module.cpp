// The pybind11 module of the vk device; q8ta_ops.device is its public face. Importing it registers the
// backend with torch, for the whole process.
#include <c10/core/impl/VirtualGuardImpl.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/utils/pybind.h>

#include <map>
#include <optional>
#include <vector>

#include "device/allocator.h"
#include "device/devices.h"
#include "device/direct_call.h"
#include "device/fallback.h"
#include "device/graph.h"
#include "device/hooks.h"
#include "device/host_view.h"
#include "vulkan/context.h"
#include "vulkan/device_stream.h"
#include "vulkan/fork.h"
#include "vulkan/profiler.h"
#include "vulkan/timestamps.h"

namespace py = pybind11;

namespace {

/// torch's type for an index has 8 bits.
c10::DeviceIndex device_index(int index) {
  const bool representable = index == static_cast<c10::DeviceIndex>(index);
  TORCH_CHECK(representable, "vk: invalid device ordinal " + std::to_string(index));
  return static_cast<c10::DeviceIndex>(index);
}

q8ta::vulkan::Device& device_at(int index) { return q8ta::device::device_at(device_index(index)); }

/// One tuple for each record, in the order of vk_profile.Dispatch. Times are in microseconds since the first
/// dispatch on the same device.
py::list stop_profile() {
  using q8ta::vulkan::DispatchRecord;
  std::vector<DispatchRecord> records;
  {
    const py::gil_scoped_release release;
    records = q8ta::vulkan::Context::stop_profile();
  }
  std::map<const q8ta::vulkan::Device*, uint64_t> first_ticks;
  for (const DispatchRecord& record : records) {
    if (!record.gpu_us) continue;
    uint64_t& first = first_ticks.try_emplace(record.device, record.begin_ticks).first->second;
    if (q8ta::vulkan::microseconds_between(*record.device, first, record.begin_ticks) < 0) {
      first = record.begin_ticks;
    }
  }
  py::list result;
  for (const DispatchRecord& record : records) {
    std::optional<double> begin_us;
    if (record.gpu_us) {
      begin_us = q8ta::vulkan::microseconds_between(*record.device, first_ticks.at(record.device),
                                                    record.begin_ticks);
    }
    const auto& label = record.label;
    result.append(py::make_tuple(label.kernel, label.op, label.M, label.K, label.N, record.workgroups,
                                 record.gpu_us, record.bytes,
                                 record.device == nullptr ? "host" : record.device->info().name, begin_us));
  }
  return result;
}

}  // namespace

PYBIND11_MODULE(_vk_device, module) {
  using release = py::call_guard<py::gil_scoped_release>;
  using namespace q8ta;

  module.def("open_devices", &device::open_devices, release());
  module.def("register_backend", [] {
    device::register_allocator();
    device::register_hooks();
  });
  module.def("device_count", [] { return static_cast<int>(device::device_count()); });
  module.def("current_device", [] { return static_cast<int>(device::current_device()); });
  module.def("in_bad_fork", &vulkan::inherited_by_fork);
  module.def("set_device", [](int index) { device::set_current_device(device_index(index)); });
  module.def("vulkan_index", [](int index) { return device_at(index).info().index; });
  module.def("synchronize", [](int index) { device_at(index).stream().synchronize(); }, release());
  module.def("empty_cache", [] { device::allocator().emptyCache(); }, release());
  module.def("is_host_visible",
             torch::wrap_pybind_function(py::overload_cast<const at::Tensor&>(&device::is_host_visible)));
  module.def("host_view", torch::wrap_pybind_function_no_gil(&device::host_view));
  module.def("cache_hits", [](int index) { return device_at(index).memory().statistics().cache_hits; });
  py::class_<device::Graph>(module, "Graph")
      .def(py::init<>())
      .def("capture_begin", &device::Graph::capture_begin, release())
      .def("capture_end", &device::Graph::capture_end, release())
      .def("give_up_capture", &device::Graph::give_up_capture, release())
      .def("replay", &device::Graph::replay, release())
      .def("reset", &device::Graph::reset, release());
  module.def("is_capturing", [] { return vulkan::Capture::of_this_thread() != nullptr; });
  module.def("start_profile", [] {
    {
      const py::gil_scoped_release unlocked;
      vulkan::Context::synchronize_if_open();  // what is queued is not in the profile
    }
    vulkan::Profiler::instance().start();
  });
  module.def("stop_profile", &stop_profile);
  // Of two events that the device has passed, by the addresses that torch knows them by.
  module.def(
      "elapsed_time",
      [](uintptr_t begin, uintptr_t end) {
        const auto address = [](uintptr_t event) { return reinterpret_cast<void*>(event); };  // NOLINT
        const c10::impl::VirtualGuardImpl guard(c10::DeviceType::PrivateUse1);
        return guard.elapsedTime(address(begin), address(end), device::current_device());
      },
      release());
  module.def("direct_call", &device::direct_call);
  module.def("fallback_counts", &device::fallback_counts);
  module.def("reset_fallback_counts", &device::reset_fallback_counts);
}
