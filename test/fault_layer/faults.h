#pragma once

#include <vulkan/vulkan.h>

#include <array>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <string_view>

/// Every call that the layer counts and can make fail.
#define FAULT_LAYER_INSTANCE_CALLS(X)   \
  X(EnumeratePhysicalDevices)           \
  X(EnumerateDeviceExtensionProperties) \
  X(CreateDebugUtilsMessengerEXT)

#define FAULT_LAYER_DEVICE_CALLS(X)    \
  X(AllocateCommandBuffers)            \
  X(AllocateDescriptorSets)            \
  X(AllocateMemory)                    \
  X(BeginCommandBuffer)                \
  X(BindBufferMemory)                  \
  X(BindBufferMemory2)                 \
  X(CreateBuffer)                      \
  X(CreateCommandPool)                 \
  X(CreateComputePipelines)            \
  X(CreateDescriptorPool)              \
  X(CreateDescriptorSetLayout)         \
  X(CreateFence)                       \
  X(CreatePipelineCache)               \
  X(CreatePipelineLayout)              \
  X(CreateQueryPool)                   \
  X(CreateShaderModule)                \
  X(DeviceWaitIdle)                    \
  X(EndCommandBuffer)                  \
  X(FlushMappedMemoryRanges)           \
  X(GetFenceStatus)                    \
  X(GetMemoryHostPointerPropertiesEXT) \
  X(GetQueryPoolResults)               \
  X(InvalidateMappedMemoryRanges)      \
  X(MapMemory)                         \
  X(QueueSubmit)                       \
  X(QueueWaitIdle)                     \
  X(ResetFences)                       \
  X(WaitForFences)

namespace fault_layer {

enum class Call : uint32_t {
  CreateInstance,
  CreateDevice,
#define X(name) name,
  FAULT_LAYER_INSTANCE_CALLS(X) FAULT_LAYER_DEVICE_CALLS(X)
#undef X
      count
};

constexpr size_t kCalls = static_cast<size_t>(Call::count);

const char* name_of(Call call);

/// Which call fails next, how often each was made, and which objects are alive. One for the process.
class Faults {
 public:
  static Faults& instance();

  /// The `countdown`-th call from now (1: the next one) of `function` (without "vk") returns `result`; if
  /// `sticky`, all later ones, too. False if there is no such function.
  bool arm(std::string_view function, uint64_t countdown, VkResult result, bool sticky);
  void disarm();

  /// Counts the call. VK_SUCCESS, or what it must return.
  VkResult next(Call call);

  uint64_t made(std::string_view function) const;  ///< since forget_counts()
  uint64_t failed() const;                         ///< calls that were made to fail, since forget_counts()
  void forget_counts();

  /// A device that is lost: from now on each of its calls that may say so does.
  void lose(const void* device);
  bool is_lost(const void* device) const;

  /// While true no work ends: waits time out.
  void hang(bool hangs);
  bool hangs() const;
  /// Waits for at most so long, or until the hang is over.
  void wait_while_hung(uint64_t nanoseconds, const void* device);

  /// From now on, after each call that was made to fail, the next object of `kind` is not destroyed: a leak,
  /// as if what handles the failure had forgotten it. "": none.
  void leak_objects(std::string_view kind);
  /// Whether an object of `kind` that is about to be destroyed is to be leaked instead.
  bool leaks(std::string_view kind);

  /// For the process's end, as drivers have it: calls that come later crash, and so does this if any waits.
  void take_apart();

  /// From now on every physical device says that it is a discrete GPU.
  void pretend_discrete();
  bool pretends_discrete() const;

  void created(const char* kind, const void* device, uint64_t handle, uint64_t pool = 0);
  void destroyed(const char* kind, const void* device, uint64_t handle);
  /// Objects of devices that are not lost: how many of `kind`, or of all kinds ("").
  int64_t alive(std::string_view kind) const;
  int64_t waiting() const;  ///< threads that wait for hung work

 private:
  struct Object {
    std::string kind;
    const void* device;
    uint64_t handle;
    auto operator<=>(const Object&) const = default;
  };

  mutable std::mutex mutex_;
  std::condition_variable hang_changed_;
  std::array<uint64_t, kCalls> made_{};
  uint64_t failed_ = 0;
  std::string leaked_kind_;
  bool object_to_leak_ = false;
  struct Armed {
    uint64_t countdown = 0;  // 0: not armed
    VkResult result = VK_SUCCESS;
    bool sticky = false;
  };
  std::array<Armed, kCalls> armed_{};
  bool hangs_ = false;
  int64_t waiting_ = 0;
  bool apart_ = false;
  bool discrete_ = false;
  std::set<const void*> lost_;
  std::map<Object, uint64_t> objects_;  // and the pool that each is from, if any
};

}  // namespace fault_layer
