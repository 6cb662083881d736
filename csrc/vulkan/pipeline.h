#pragma once

#include <volk.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <mutex>
#include <string_view>
#include <unordered_map>

#include "vulkan/shader.h"

namespace q8ta::vulkan {

class Device;

/// What makes a pipeline: a shader and the values of its specialization constants 0, 1, 2, ...
struct PipelineSpec {
  std::string_view shader;
  std::array<uint32_t, 20> constants{};
  uint32_t constant_count = 0;
  uint32_t bindings = 0;  ///< storage buffers, bound at 0 .. bindings - 1
  uint32_t push_constant_bytes = 0;
  bool requires_subgroup_size = false;  ///< run with DeviceInfo::subgroup_size and full subgroups
  /// The shader reads and writes nothing outside its bindings, and is faster where the driver does not see to
  /// that (DeviceInfo::pipeline_robustness).
  bool stays_in_bindings = false;

  void set_constants(std::initializer_list<uint32_t> values) {
    constant_count = static_cast<uint32_t>(values.size());
    std::copy(values.begin(), values.end(), constants.begin());
  }

  bool operator==(const PipelineSpec& other) const {
    return constants == other.constants && constant_count == other.constant_count &&
           bindings == other.bindings && push_constant_bytes == other.push_constant_bytes &&
           requires_subgroup_size == other.requires_subgroup_size &&
           stays_in_bindings == other.stays_in_bindings && shader == other.shader;
  }
};

/// A compute pipeline with its layouts.
class Pipeline {
 public:
  Pipeline(Device& device, VkPipelineCache cache, const PipelineSpec& spec);
  ~Pipeline();
  Pipeline(const Pipeline&) = delete;
  Pipeline& operator=(const Pipeline&) = delete;

  VkPipeline handle() const { return pipeline_; }
  VkPipelineLayout layout() const { return layout_; }
  VkDescriptorSetLayout set_layout() const { return set_layout_; }

 private:
  void create(VkPipelineCache cache, const PipelineSpec& spec);
  void destroy();

  Device& device_;
  VkDescriptorSetLayout set_layout_ = VK_NULL_HANDLE;
  VkPipelineLayout layout_ = VK_NULL_HANDLE;
  VkPipeline pipeline_ = VK_NULL_HANDLE;
};

/// What a layer above keeps beside a device's pipelines. Destroyed before them.
class PipelineCompanion {
 public:
  PipelineCompanion() = default;
  virtual ~PipelineCompanion() = default;
  PipelineCompanion(const PipelineCompanion&) = delete;
  PipelineCompanion& operator=(const PipelineCompanion&) = delete;
};

/// Makes each pipeline on its first use and keeps it as long as the device. Thread-safe.
class PipelineCache {
 public:
  explicit PipelineCache(Device& device);
  ~PipelineCache();
  PipelineCache(const PipelineCache&) = delete;
  PipelineCache& operator=(const PipelineCache&) = delete;

  const Pipeline& get(const PipelineSpec& spec);

  /// The one companion, made from the device on first use; all callers mean the same T.
  template <typename T>
  T& companion() {
    if (PipelineCompanion* made = companion_.load(std::memory_order_acquire)) return static_cast<T&>(*made);
    const std::lock_guard lock(companion_mutex_);
    if (!owned_companion_) {
      owned_companion_ = std::make_unique<T>(device_);
      companion_.store(owned_companion_.get(), std::memory_order_release);
    }
    return static_cast<T&>(*owned_companion_);
  }

 private:
  struct Hash {
    size_t operator()(const PipelineSpec& spec) const;
  };

  Device& device_;
  VkPipelineCache cache_ = VK_NULL_HANDLE;
  std::mutex mutex_;
  std::unordered_map<PipelineSpec, Pipeline, Hash> pipelines_;
  std::mutex companion_mutex_;
  std::unique_ptr<PipelineCompanion> owned_companion_;
  std::atomic<PipelineCompanion*> companion_{nullptr};
};

}  // namespace q8ta::vulkan
