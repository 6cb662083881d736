#include "vulkan/selection.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <cstdlib>
#include <mutex>
#include <sstream>
#include <stdexcept>
#include <utility>

#include "vulkan/context.h"
#include "vulkan/error.h"
#include "vulkan/fork.h"

namespace q8ta::vulkan {
namespace {

std::mutex request_mutex;
std::optional<DeviceRequest> explicit_request;
std::atomic<std::shared_ptr<const Selection>> resolved;
std::atomic<uint64_t> changes{0};

void change_to(std::shared_ptr<const Selection> selection) {
  resolved.store(std::move(selection), std::memory_order_release);
  changes.fetch_add(1, std::memory_order_release);
}

/// Forks wait for this lock, too: a child must not find it held by a thread that opens a device.
std::unique_lock<std::mutex> lock_requests() {
  Context::watch_forks();  // first: what is to happen before a fork does so in the reverse order
  static const int registered = pthread_atfork([] { request_mutex.lock(); }, [] { request_mutex.unlock(); },
                                               [] { request_mutex.unlock(); });
  (void)registered;
  return std::unique_lock(request_mutex);
}

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

DeviceRequest environment_request() {
  DeviceRequest request;
  request.device = environment("Q8TA_DEVICE");
  std::stringstream list(environment("Q8TA_DISABLE"));
  for (std::string feature; std::getline(list, feature, ',');) {
    if (!feature.empty()) request.disable.push_back(feature);
  }
  return request;
}

DisabledFeatures parse_disabled(const std::vector<std::string>& features) {
  DisabledFeatures disabled;
  for (const std::string& feature : features) {
    if (feature == "coopmat") {
      disabled.cooperative_matrix = true;
    } else if (feature == "int_dot") {
      disabled.int_dot = true;
    } else if (feature == "subgroup") {
      disabled.subgroup = true;
    } else {
      throw std::invalid_argument("disable (Q8TA_DISABLE): expected coopmat, int_dot or subgroup, got '" +
                                  feature + "'");
    }
  }
  return disabled;
}

std::string list_devices(std::span<const DeviceInfo> devices) {
  std::string text = "host";
  for (const DeviceInfo& info : devices) text += ", " + std::to_string(info.index) + " (" + info.name + ")";
  return text;
}

int rank(const DeviceInfo& info) {
  if (!info.usable()) return 0;
  switch (info.type) {
    case VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU:
      return 3;
    case VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU:
      return 2;
    case VK_PHYSICAL_DEVICE_TYPE_VIRTUAL_GPU:
      return 1;
    default:
      return 0;
  }
}

Selection select_automatically() {
  Selection selection;
  try {
    Context& context = Context::get();
    const std::span<const DeviceInfo> devices = context.devices();
    const auto best = std::max_element(devices.begin(), devices.end(),
                                       [](const auto& a, const auto& b) { return rank(a) < rank(b); });
    if (best == devices.end() || rank(*best) == 0) {
      selection.reason = "there is no hardware GPU with Vulkan 1.2";
      if (!devices.empty()) {
        selection.reason +=
            " (software devices run only when Q8TA_DEVICE names them; there are: " + list_devices(devices) +
            ")";
      }
      return selection;
    }
    selection.device = &context.device(best->index);
    selection.reason = std::string("it is the best hardware GPU (") + best->type_name() + ")";
  } catch (const Error& error) {
    check_not_forked();  // a child must hear of the fork, not silently compute elsewhere than its parent
    selection.device = nullptr;
    selection.reason = std::string("Vulkan cannot be used: ") + error.what();
  }
  return selection;
}

const DeviceInfo& find_device(std::span<const DeviceInfo> devices, const std::string& wanted) {
  uint32_t index = 0;
  const char* end = wanted.data() + wanted.size();
  const auto [stop, error] = std::from_chars(wanted.data(), end, index);
  const bool is_index = error == std::errc() && stop == end;
  for (const DeviceInfo& info : devices) {
    const bool matches =
        is_index ? info.index == index : lower(info.name).find(lower(wanted)) != std::string::npos;
    if (matches) return info;
  }
  throw std::invalid_argument("device (Q8TA_DEVICE): no Vulkan device matches '" + wanted +
                              "'; there are: " + list_devices(devices));
}

Selection resolve(const DeviceRequest& request, const std::string& asked_by) {
  Selection selection;
  const DisabledFeatures disabled = parse_disabled(request.disable);
  if (request.device.empty()) {
    selection = select_automatically();
  } else if (lower(request.device) == "host") {
    selection.reason = asked_by + " asks for the host";
  } else {
    try {
      Context& context = Context::get();
      selection.device = &context.device(find_device(context.devices(), request.device).index);
    } catch (const Error& error) {
      throw Error(asked_by + " asks for '" + request.device + "', but " + error.what());
    }
    selection.reason = asked_by + " asks for '" + request.device + "'";
  }
  selection.disabled = disabled;
  return selection;
}

std::shared_ptr<const Selection> resolve_shared(const std::optional<DeviceRequest>& request) {
  return std::make_shared<const Selection>(request ? resolve(*request, "use_device")
                                                   : resolve(environment_request(), "Q8TA_DEVICE"));
}

}  // namespace

std::shared_ptr<const Selection> current_selection() {
  const auto usable = [](const Selection* selection) {
    return selection != nullptr && (selection->device == nullptr || !selection->device->lost());
  };
  std::shared_ptr<const Selection> selection = resolved.load(std::memory_order_acquire);
  if (!usable(selection.get())) {
    const std::unique_lock lock = lock_requests();
    selection = resolved.load();
    if (!usable(selection.get())) {
      selection = resolve_shared(explicit_request);
      change_to(selection);
    }
  }
  if (selection->device != nullptr) check_not_forked();
  return selection;
}

void set_request(std::optional<DeviceRequest> request) {
  const std::unique_lock lock = lock_requests();
  // Returning to the environment resolves later: a context manager must be able to leave its block even if
  // the environment's request is impossible.
  change_to(request ? resolve_shared(request) : nullptr);
  explicit_request = std::move(request);
}

void forget_selection() { change_to(nullptr); }

uint64_t selection_changes() { return changes.load(std::memory_order_acquire); }

std::optional<DeviceRequest> current_request() {
  const std::unique_lock lock = lock_requests();
  return explicit_request;
}

}  // namespace q8ta::vulkan
