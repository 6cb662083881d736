#include "tables.h"

#include <map>
#include <mutex>
#include <shared_mutex>
#include <utility>

namespace fault_layer {
namespace {

std::shared_mutex mutex;
std::map<const void*, std::unique_ptr<InstanceTable>> instances;
std::map<const void*, std::unique_ptr<DeviceTable>> devices;

}  // namespace

const InstanceTable& instance_table(const void* key) {
  const std::shared_lock lock(mutex);
  return *instances.at(key);
}

const DeviceTable& device_table(const void* key) {
  const std::shared_lock lock(mutex);
  return *devices.at(key);
}

void add_instance(VkInstance instance, PFN_vkGetInstanceProcAddr get) {
  auto table = std::make_unique<InstanceTable>();
  table->instance = instance;
  table->get = get;
#define X(name) table->next[static_cast<size_t>(Call::name)] = get(instance, "vk" #name);
  FAULT_LAYER_INSTANCE_CALLS(X)
#undef X
  const std::unique_lock lock(mutex);
  instances[key_of(instance)] = std::move(table);
}

void add_device(VkDevice device, PFN_vkGetDeviceProcAddr get) {
  auto table = std::make_unique<DeviceTable>();
  table->device = device;
  table->get = get;
#define X(name) table->next[static_cast<size_t>(Call::name)] = get(device, "vk" #name);
  FAULT_LAYER_DEVICE_CALLS(X)
#undef X
  const std::unique_lock lock(mutex);
  devices[key_of(device)] = std::move(table);
}

std::unique_ptr<InstanceTable> take_instance(VkInstance instance) {
  const std::unique_lock lock(mutex);
  return std::move(instances.extract(key_of(instance)).mapped());
}

std::unique_ptr<DeviceTable> take_device(VkDevice device) {
  const std::unique_lock lock(mutex);
  return std::move(devices.extract(key_of(device)).mapped());
}

void finish_work(const DeviceTable& table) {
  table.function<PFN_vkDeviceWaitIdle>("vkDeviceWaitIdle")(table.device);
}

void lose_all_devices() {
  const std::shared_lock lock(mutex);
  for (const auto& [key, table] : devices) {
    finish_work(*table);
    Faults::instance().lose(table->device);
  }
}

}  // namespace fault_layer
