#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace q8ta::vulkan {

/// Who a dispatch was for; only looked at while profiling.
struct DispatchLabel {
  const char* op = "";
  const char* kernel = "";
  uint32_t M = 0;
  uint32_t K = 0;
  uint32_t N = 0;
};

struct DispatchRecord {
  DispatchLabel label;
  uint32_t workgroups = 0;
  std::optional<double> gpu_us;  ///< empty for host kernels and for devices without timestamps
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
