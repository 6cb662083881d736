#include "vulkan/pipeline.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include "vulkan/device.h"
#include "vulkan/driver_fault.h"
#include "vulkan/error.h"

namespace q8ta::vulkan {

Pipeline::Pipeline(Device& device, VkPipelineCache cache, const PipelineSpec& spec) : device_(device) {
  try {
    create(cache, spec);
  } catch (...) {
    destroy();
    throw;
  }
}

Pipeline::~Pipeline() { destroy(); }

void Pipeline::destroy() {
  const VolkDeviceTable& api = device_.api();
  api.vkDestroyPipeline(device_.handle(), pipeline_, nullptr);
  api.vkDestroyPipelineLayout(device_.handle(), layout_, nullptr);
  api.vkDestroyDescriptorSetLayout(device_.handle(), set_layout_, nullptr);
}

void Pipeline::create(VkPipelineCache cache, const PipelineSpec& spec) {
  const VolkDeviceTable& api = device_.api();
  const Shader* shader = find_shader(spec.shader);
  if (shader == nullptr) throw Error("this build has no shader " + std::string(spec.shader));

  std::vector<VkDescriptorSetLayoutBinding> bindings(spec.bindings);
  for (uint32_t i = 0; i < spec.bindings; ++i) {
    bindings[i].binding = i;
    bindings[i].descriptorType = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER;
    bindings[i].descriptorCount = 1;
    bindings[i].stageFlags = VK_SHADER_STAGE_COMPUTE_BIT;
  }
  VkDescriptorSetLayoutCreateInfo set_info{VK_STRUCTURE_TYPE_DESCRIPTOR_SET_LAYOUT_CREATE_INFO};
  set_info.bindingCount = spec.bindings;
  set_info.pBindings = bindings.data();
  VkDescriptorSetLayout set_layout = VK_NULL_HANDLE;
  check(api.vkCreateDescriptorSetLayout(device_.handle(), &set_info, nullptr, &set_layout),
        "vkCreateDescriptorSetLayout");
  set_layout_ = set_layout;

  const VkPushConstantRange push{VK_SHADER_STAGE_COMPUTE_BIT, 0, spec.push_constant_bytes};
  VkPipelineLayoutCreateInfo layout_info{VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO};
  layout_info.setLayoutCount = 1;
  layout_info.pSetLayouts = &set_layout_;
  layout_info.pushConstantRangeCount = spec.push_constant_bytes > 0 ? 1 : 0;
  layout_info.pPushConstantRanges = &push;
  VkPipelineLayout layout = VK_NULL_HANDLE;
  check(api.vkCreatePipelineLayout(device_.handle(), &layout_info, nullptr, &layout),
        "vkCreatePipelineLayout");
  layout_ = layout;

  std::vector<VkSpecializationMapEntry> entries(spec.constant_count);
  for (uint32_t i = 0; i < entries.size(); ++i) {
    entries[i] = {i, static_cast<uint32_t>(i * sizeof(uint32_t)), sizeof(uint32_t)};
  }
  VkSpecializationInfo specialization{};
  specialization.mapEntryCount = static_cast<uint32_t>(entries.size());
  specialization.pMapEntries = entries.data();
  specialization.dataSize = spec.constant_count * sizeof(uint32_t);
  specialization.pData = spec.constants.data();

  const std::optional<std::vector<uint32_t>> faulty = with_driver_fault(spec.shader, shader->code);
  const std::span<const uint32_t> code = faulty ? std::span<const uint32_t>(*faulty) : shader->code;
  VkShaderModuleCreateInfo module_info{VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO};
  module_info.codeSize = code.size_bytes();
  module_info.pCode = code.data();
  VkShaderModule module = VK_NULL_HANDLE;
  check(api.vkCreateShaderModule(device_.handle(), &module_info, nullptr, &module), "vkCreateShaderModule");

  VkPipelineShaderStageRequiredSubgroupSizeCreateInfo subgroup_info{
      VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_REQUIRED_SUBGROUP_SIZE_CREATE_INFO};
  subgroup_info.requiredSubgroupSize = device_.info().subgroup_size;

  VkComputePipelineCreateInfo pipeline_info{VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO};
  pipeline_info.stage.sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO;
  pipeline_info.stage.stage = VK_SHADER_STAGE_COMPUTE_BIT;
  pipeline_info.stage.module = module;
  pipeline_info.stage.pName = "main";
  pipeline_info.stage.pSpecializationInfo = &specialization;
  if (spec.requires_subgroup_size) {
    pipeline_info.stage.pNext = &subgroup_info;
    pipeline_info.stage.flags = VK_PIPELINE_SHADER_STAGE_CREATE_REQUIRE_FULL_SUBGROUPS_BIT;
  }
  VkPipelineRobustnessCreateInfoEXT robustness{VK_STRUCTURE_TYPE_PIPELINE_ROBUSTNESS_CREATE_INFO_EXT};
  if (device_.info().pipeline_robustness) {
    robustness.storageBuffers = spec.stays_in_bindings
                                    ? VK_PIPELINE_ROBUSTNESS_BUFFER_BEHAVIOR_DISABLED_EXT
                                    : VK_PIPELINE_ROBUSTNESS_BUFFER_BEHAVIOR_ROBUST_BUFFER_ACCESS_EXT;
    robustness.pNext = pipeline_info.stage.pNext;
    pipeline_info.stage.pNext = &robustness;
  }
  pipeline_info.layout = layout_;
  const VkResult result =
      api.vkCreateComputePipelines(device_.handle(), cache, 1, &pipeline_info, nullptr, &pipeline_);
  api.vkDestroyShaderModule(device_.handle(), module, nullptr);
  check(result, "vkCreateComputePipelines");
}

PipelineCache::PipelineCache(Device& device) : device_(device) {
  const VkPipelineCacheCreateInfo info{VK_STRUCTURE_TYPE_PIPELINE_CACHE_CREATE_INFO};
  check(device_.api().vkCreatePipelineCache(device_.handle(), &info, nullptr, &cache_),
        "vkCreatePipelineCache");
}

PipelineCache::~PipelineCache() { device_.api().vkDestroyPipelineCache(device_.handle(), cache_, nullptr); }

size_t PipelineCache::Hash::operator()(const PipelineSpec& spec) const {
  // For every dispatch: so the end of the name has to do, and no multiplication waits for another.
  uint64_t letters = 0;
  const size_t count = std::min(spec.shader.size(), sizeof(letters));
  std::memcpy(&letters, spec.shader.data() + spec.shader.size() - count, count);
  uint64_t hash = (letters + spec.shader.size()) * 0x9E37'79B9'7F4A'7C15U;
  uint64_t factor = 0xD6E8'FEB8'6659'FD93U;
  for (uint32_t i = 0; i < spec.constant_count; ++i) {
    hash += spec.constants[i] * factor;
    factor += 0x2545'F491'4F6C'DD1EU;
  }
  return hash ^ hash >> 32U;
}

const Pipeline& PipelineCache::get(const PipelineSpec& spec) {
  const std::lock_guard lock(mutex_);
  const auto found = pipelines_.find(spec);
  if (found != pipelines_.end()) return found->second;
  return pipelines_
      .emplace(std::piecewise_construct, std::forward_as_tuple(spec),
               std::forward_as_tuple(device_, cache_, spec))
      .first->second;
}

}  // namespace q8ta::vulkan
