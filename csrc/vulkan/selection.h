#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "vulkan/device.h"

namespace q8ta::vulkan {

/// Hardware features that kernels must do without although the device has them (Q8TA_DISABLE).
struct DisabledFeatures {
  bool cooperative_matrix = false;
  bool int_dot = false;
  bool subgroup = false;
};

/// Which device CPU tensors go to. Empty fields mean the automatic choice and nothing disabled.
struct DeviceRequest {
  std::string device;                ///< "host", an index, or part of a name; "": automatic
  std::vector<std::string> disable;  ///< of "coopmat", "int_dot", "subgroup"

  bool operator==(const DeviceRequest&) const = default;
};

/// The outcome of a request.
struct Selection {
  Device* device = nullptr;  ///< null: the integer kernel of the host
  DisabledFeatures disabled;
  std::string reason;  ///< why, in a sentence
};

/// What calls with CPU tensors use now: the request that set_request made, else Q8TA_DEVICE and Q8TA_DISABLE.
/// A device that was lost is opened anew. Throws std::invalid_argument for a device or feature that does not
/// exist, Unavailable in a forked child.
std::shared_ptr<const Selection> current_selection();

/// Counts how often what current_selection() returns may have changed: who remembers what follows from it
/// asks for this first.
uint64_t selection_changes();

/// Process-wide. An empty optional returns to the environment's request. The new request is resolved at once:
/// if that throws, the old one stays.
void set_request(std::optional<DeviceRequest> request);
std::optional<DeviceRequest> current_request();

/// Resolves the request anew on the next use: the devices that it found are gone.
void forget_selection();

}  // namespace q8ta::vulkan
