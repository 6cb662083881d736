#pragma once

#include <volk.h>

#include <algorithm>
#include <array>
#include <compare>
#include <cstdint>
#include <initializer_list>
#include <map>
#include <mutex>
#include <string_view>

#include "vulkan/shader.h"

namespace q8ta::vulkan {

class Device;

/// What makes a pipeline: a shader and the values of its specialization constants 0, 1, 2, ...
struct PipelineSpec {
  std::string_view shader;
  std::array<uint32_t, 16> constants{};
  uint32_t constant_count = 0;
  uint32_t bindings = 0;  ///< storage buffers, bound at 0 .. bindings - 1
  uint32_t push_constant_bytes = 0;
  bool requires_subgroup_size = false;  ///< run with DeviceInfo::subgroup_size and full subgroups

  void set_constants(std::initializer_list<uint32_t> values) {
    constant_count = static_cast<uint32_t>(values.size());
    std::copy(values.begin(), values.end(), constants.begin());
  }

  auto operator<=>(const PipelineSpec&) const = default;
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

/// Makes each pipeline on its first use and keeps it as long as the device. Thread-safe.
class PipelineCache {
 public:
  explicit PipelineCache(Device& device);
  ~PipelineCache();
  PipelineCache(const PipelineCache&) = delete;
  PipelineCache& operator=(const PipelineCache&) = delete;

  const Pipeline& get(const PipelineSpec& spec);

 private:
  Device& device_;
  VkPipelineCache cache_ = VK_NULL_HANDLE;
  std::mutex mutex_;
  std::map<PipelineSpec, Pipeline> pipelines_;
};

}  // namespace q8ta::vulkan
