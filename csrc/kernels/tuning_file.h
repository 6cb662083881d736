#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "vulkan/device_info.h"

namespace q8ta::kernels {

/// What was measured on this and other devices, in a text file of the user's: Q8TA_TUNE_CACHE, else
/// q8ta-ops/tuning.txt in the folder for caches. One line a shape class, its fields separated by tabs:
/// device, driver, fingerprint of our kernels, shape class, variant, nanoseconds. Never throws: what is wrong
/// with the file is a warning.
class TuningFile {
 public:
  explicit TuningFile(const vulkan::DeviceInfo& info);

  /// The variant of each shape class that was measured on this device, with this driver and these kernels.
  std::map<std::string, std::string> read() const;

  /// Adds or replaces a line. Other processes may do the same; the file is replaced as a whole, so that
  /// readers see the old or the new one.
  void add(const std::string& shape_class, const std::string& variant, double us) const;

  /// Empty where there is no place for it.
  static std::filesystem::path path();

 private:
  struct Line {
    std::string device, driver, kernels, shape_class, variant, nanoseconds;
  };

  static std::vector<Line> read_lines();
  static std::optional<Line> parse(const std::string& text);

  std::string device_, driver_, kernels_;
};

}  // namespace q8ta::kernels
