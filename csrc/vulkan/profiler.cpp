#include "vulkan/profiler.h"

#include <atomic>
#include <mutex>
#include <utility>

namespace q8ta::vulkan {
namespace {

std::atomic<bool> profiling{false};
std::mutex records_mutex;
std::vector<DispatchRecord> records;

}  // namespace

std::string names_once(const std::vector<const char*>& names) {
  std::string text;
  for (const char* name : names) {
    if (text.find(name) == std::string::npos) text += (text.empty() ? "" : ", ") + std::string(name);
  }
  return text;
}

Profiler& Profiler::instance() {
  static Profiler profiler;
  return profiler;
}

bool Profiler::enabled() const { return profiling.load(std::memory_order_relaxed); }

void Profiler::start() {
  const std::lock_guard lock(records_mutex);
  records.clear();
  profiling.store(true);
}

std::vector<DispatchRecord> Profiler::stop() {
  const std::lock_guard lock(records_mutex);
  profiling.store(false);
  return std::exchange(records, {});
}

void Profiler::add(DispatchRecord record) {
  const std::lock_guard lock(records_mutex);
  if (profiling.load()) records.push_back(std::move(record));
}

}  // namespace q8ta::vulkan
