// The pybind11 module of the vk device; q8ta_ops.device is its public face. Importing it registers the
// backend with torch, for the whole process.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "device/allocator.h"
#include "device/devices.h"
#include "device/fallback.h"
#include "device/hooks.h"
#include "vulkan/device_stream.h"
#include "vulkan/fork.h"

namespace py = pybind11;

namespace {

/// torch's type for an index has 8 bits.
c10::DeviceIndex device_index(int index) {
  const bool representable = index == static_cast<c10::DeviceIndex>(index);
  TORCH_CHECK(representable, "vk: invalid device ordinal " + std::to_string(index));
  return static_cast<c10::DeviceIndex>(index);
}

q8ta::vulkan::Device& device_at(int index) { return q8ta::device::device_at(device_index(index)); }

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
  module.def("memory_statistics", [](int index) {
    const auto now = device_at(index).memory().statistics();
    using namespace pybind11::literals;
    return py::dict(
        "allocated_bytes"_a = now.allocated_bytes, "peak_allocated_bytes"_a = now.peak_allocated_bytes,
        "reserved_bytes"_a = now.reserved_bytes, "peak_reserved_bytes"_a = now.peak_reserved_bytes,
        "allocations"_a = now.allocations, "frees"_a = now.frees, "cache_hits"_a = now.cache_hits);
  });
  module.def("reset_peak_memory", [](int index) { device_at(index).memory().reset_peaks(); });
  module.def("fallback_counts", &device::fallback_counts);
  module.def("reset_fallback_counts", &device::reset_fallback_counts);
}
