#include "faults.h"

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <memory>

namespace fault_layer {
namespace {

constexpr std::array<const char*, kCalls> kNames{"CreateInstance", "CreateDevice",
#define X(name) #name,
                                                 FAULT_LAYER_INSTANCE_CALLS(X) FAULT_LAYER_DEVICE_CALLS(X)
#undef X
};

Call call_named(std::string_view name) {
  for (size_t i = 0; i < kCalls; ++i) {
    if (name == kNames[i]) return static_cast<Call>(i);
  }
  return Call::count;
}

}  // namespace

const char* name_of(Call call) { return kNames[static_cast<size_t>(call)]; }

Faults& Faults::instance() {
  static Faults& faults = *std::make_unique<Faults>().release();  // drivers outlive static objects
  return faults;
}

bool Faults::arm(std::string_view function, uint64_t countdown, VkResult result, bool sticky) {
  const std::lock_guard lock(mutex_);
  const Call call = call_named(function);
  if (call == Call::count) return false;
  armed_[static_cast<size_t>(call)] = {countdown, result, sticky};
  return true;
}

void Faults::disarm() {
  const std::lock_guard lock(mutex_);
  armed_ = {};
}

VkResult Faults::next(Call call) {
  const std::lock_guard lock(mutex_);
  if (apart_) std::raise(SIGSEGV);
  ++made_[static_cast<size_t>(call)];
  Armed& armed = armed_[static_cast<size_t>(call)];
  if (armed.countdown == 0) return VK_SUCCESS;
  if (armed.countdown > 1) {
    --armed.countdown;
    return VK_SUCCESS;
  }
  if (!armed.sticky) armed.countdown = 0;
  ++failed_;
  object_to_leak_ = !leaked_kind_.empty();
  return armed.result;
}

uint64_t Faults::made(std::string_view function) const {
  const std::lock_guard lock(mutex_);
  const Call call = call_named(function);
  return call == Call::count ? 0 : made_[static_cast<size_t>(call)];
}

uint64_t Faults::failed() const {
  const std::lock_guard lock(mutex_);
  return failed_;
}

void Faults::forget_counts() {
  const std::lock_guard lock(mutex_);
  made_ = {};
  failed_ = 0;
}

void Faults::lose(const void* device) {
  const std::lock_guard lock(mutex_);
  lost_.insert(device);
  hang_changed_.notify_all();
}

bool Faults::is_lost(const void* device) const {
  const std::lock_guard lock(mutex_);
  return lost_.contains(device);
}

void Faults::hang(bool hangs) {
  const std::lock_guard lock(mutex_);
  hangs_ = hangs;
  hang_changed_.notify_all();
}

bool Faults::hangs() const {
  const std::lock_guard lock(mutex_);
  return hangs_;
}

void Faults::wait_while_hung(uint64_t nanoseconds, const void* device) {
  std::unique_lock lock(mutex_);
  ++waiting_;
  // System clock: a wait by the steady one is unknown to ThreadSanitizer.
  const auto end = std::chrono::system_clock::now() + std::chrono::nanoseconds(nanoseconds);
  hang_changed_.wait_until(lock, end, [&] { return !hangs_ || lost_.contains(device); });
  --waiting_;
}

int64_t Faults::waiting() const {
  const std::lock_guard lock(mutex_);
  return waiting_;
}

void Faults::take_apart() {
  const std::lock_guard lock(mutex_);
  apart_ = true;
  if (waiting_ > 0) std::raise(SIGSEGV);
}

void Faults::pretend_discrete() {
  const std::lock_guard lock(mutex_);
  discrete_ = true;
}

bool Faults::pretends_discrete() const {
  const std::lock_guard lock(mutex_);
  return discrete_;
}

void Faults::leak_objects(std::string_view kind) {
  const std::lock_guard lock(mutex_);
  leaked_kind_ = kind;
  object_to_leak_ = false;
}

bool Faults::leaks(std::string_view kind) {
  const std::lock_guard lock(mutex_);
  if (!object_to_leak_ || kind != leaked_kind_) return false;
  object_to_leak_ = false;
  return true;
}

void Faults::created(const char* kind, const void* device, uint64_t handle, uint64_t pool) {
  const std::lock_guard lock(mutex_);
  objects_[{kind, device, handle}] = pool;
}

void Faults::destroyed(const char* kind, const void* device, uint64_t handle) {
  const std::lock_guard lock(mutex_);
  objects_.erase({kind, device, handle});
  if (std::string_view(kind) == "CommandPool") {
    std::erase_if(objects_, [&](const auto& object) {
      return object.first.device == device && object.second == handle && object.first.kind == "CommandBuffer";
    });
  }
  if (std::string_view(kind) == "Device") {
    std::erase_if(objects_, [&](const auto& object) { return object.first.device == device; });
    lost_.erase(device);
  }
}

int64_t Faults::alive(std::string_view kind) const {
  const std::lock_guard lock(mutex_);
  int64_t count = 0;
  for (const auto& [object, pool] : objects_) {
    if ((kind.empty() || object.kind == kind) && !lost_.contains(object.device)) ++count;
  }
  return count;
}

}  // namespace fault_layer

// For tests, through ctypes. Functions are named without "vk".
using fault_layer::Faults;

extern "C" {

int q8ta_faults_arm(const char* function, uint64_t countdown, int result, int sticky) {
  return Faults::instance().arm(function, countdown, static_cast<VkResult>(result), sticky != 0) ? 1 : 0;
}
void q8ta_faults_disarm() { Faults::instance().disarm(); }
uint64_t q8ta_faults_made(const char* function) { return Faults::instance().made(function); }
uint64_t q8ta_faults_failed() { return Faults::instance().failed(); }
void q8ta_faults_forget_counts() { Faults::instance().forget_counts(); }
void q8ta_faults_hang(int hangs) { Faults::instance().hang(hangs != 0); }
void q8ta_faults_leak_objects(const char* kind) { Faults::instance().leak_objects(kind); }
void q8ta_faults_take_apart_at_exit() {
  std::atexit([] { Faults::instance().take_apart(); });
}
void q8ta_faults_pretend_discrete() { Faults::instance().pretend_discrete(); }
int64_t q8ta_faults_waiting() { return Faults::instance().waiting(); }
int64_t q8ta_faults_alive(const char* kind) { return Faults::instance().alive(kind); }
const char* q8ta_faults_call_name(uint32_t index) {
  return index < fault_layer::kCalls ? fault_layer::name_of(static_cast<fault_layer::Call>(index)) : nullptr;
}

}  // extern "C"
