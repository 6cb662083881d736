#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace q8ta::vulkan {

class Device;

/// Who a dispatch was for and how much work it is.
struct DispatchLabel {
  const char* op = "";
  const char* kernel = "";
  uint32_t M = 0;
  uint32_t K = 0;
  uint32_t N = 0;

  /// An estimate of how long it takes.
  uint64_t multiplies() const { return uint64_t{M} * K * (N > 0 ? N : 1); }
};

/// The names in a list, each once, for messages.
std::string names_once(const std::vector<const char*>& names);

struct DispatchRecord {
  DispatchLabel label;
  uint32_t workgroups = 0;
  std::optional<double> gpu_us;    ///< empty for host kernels and for devices without timestamps
  uint64_t bytes = 0;              ///< of the memory that it binds
  const Device* device = nullptr;  ///< null for host kernels
  uint64_t begin_ticks = 0;        ///< when it began by the device's clock, if gpu_us is known
};

/// Collects one record a dispatch from every thread while it is on. Off by default: timestamps cost time.
class Profiler {
 public:
  static Profiler& instance();

  bool enabled() const;
  void start();
  std::vector<DispatchRecord> stop();
  void add(DispatchRecord record);
};

}  // namespace q8ta::vulkan
