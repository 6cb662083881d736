#pragma once

#include <volk.h>

namespace q8ta::vulkan {

/// From now on, calls through `table` are known to close_driver_to_other_threads(), if they go to the same
/// driver as the first table's.
void watch_driver_calls(VolkDeviceTable& table);

/// For the end of the process. Drivers take themselves apart then, and NVIDIA's (580) ends it by SIGSEGV if
/// some thread is in the driver, as a daemon thread of Python may be. So this waits until all others have
/// left it, some seconds at most; when one of them calls it again, it does not return any more.
void close_driver_to_other_threads() noexcept;

}  // namespace q8ta::vulkan
