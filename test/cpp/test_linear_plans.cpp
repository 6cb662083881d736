// Which kernel is chosen, on devices of all kinds: only numbers, nothing runs.
#include <doctest/doctest.h>

#include <algorithm>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "kernels/layout.h"
#include "kernels/linear_candidates.h"
#include "kernels/linear_plan.h"
#include "samples.h"
#include "vulkan/shader.h"

namespace q8ta::test {
namespace {

using vulkan::DeviceInfo;

DeviceInfo described(const char* name, VkPhysicalDeviceType type, uint32_t subgroup, uint32_t invocations,
                     uint32_t shared_bytes) {
  DeviceInfo info;
  info.name = name;
  info.type = type;
  info.subgroup_size = subgroup;
  info.subgroup_arithmetic = subgroup > 1;
  info.subgroup_shuffle = subgroup > 1;
  info.max_workgroup_subgroups = subgroup > 0 ? invocations / subgroup : 0;
  info.int_dot = true;
  info.limits.maxComputeWorkGroupInvocations = invocations;
  info.limits.maxComputeWorkGroupSize[0] = invocations;
  info.limits.maxComputeSharedMemorySize = shared_bytes;
  info.limits.maxStorageBufferRange = 128U << 20U;
  return info;
}

/// From what Vulkan guarantees to what a large GPU has.
std::vector<DeviceInfo> devices_of_all_kinds() {
  std::vector<DeviceInfo> devices{
      described("the least", VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU, 0, 128, 16384),
      described("software", VK_PHYSICAL_DEVICE_TYPE_CPU, 8, 1024, 32768),
      described("SwiftShader", VK_PHYSICAL_DEVICE_TYPE_CPU, 4, 256, 32768),
      described("mobile", VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU, 16, 512, 32768),
      described("wide", VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU, 128, 1024, 32768),
      described("64 wide", VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU, 64, 1024, 65536),
      described("one lane", VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU, 1, 256, 32768),
      described("matrices", VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU, 32, 1024, 49152),
      described("small matrices", VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU, 32, 256, 32768),
  };
  devices[7].cooperative_matrix_int8 = {{16, 16, 32}, {16, 8, 32}};
  devices[8].cooperative_matrix_int8 = {{8, 16, 32}};
  return devices;
}

/// Whatever the constants say: a tile is one block along K, and no block is shared by two workgroups.
void check_reads_tiles(const kernels::LinearPlan& plan, const kernels::LinearProblem& problem) {
  constexpr size_t kTileK = 9;
  constexpr size_t kInTiles = 16;
  REQUIRE(plan.spec.shader.starts_with("linear_gemm_coopmat."));
  REQUIRE(plan.spec.constants[kInTiles] == 1);
  REQUIRE(plan.spec.constants[kTileK] == kernels::kTileSide);
  REQUIRE(plan.tile_n % kernels::kTileSide == 0);
  REQUIRE(problem.N % 16 == 0);
  REQUIRE_FALSE(plan.faster_in_tiles);
}

void check_plan(const DeviceInfo& info, const kernels::KernelFamily& family, const kernels::LinearPlan& plan,
                const kernels::LinearProblem& problem) {
  INFO(info.name, " ", kernels::variant_of(plan), " for ", problem.M, " x ", problem.K, " x ", problem.N);
  REQUIRE(vulkan::find_shader(plan.spec.shader) != nullptr);
  REQUIRE(plan.tile_m > 0);
  REQUIRE(plan.tile_n % 4 == 0);
  REQUIRE(plan.tile_n > 0);
  REQUIRE(plan.workgroups ==
          kernels::ceil_div(problem.M, plan.tile_m) * kernels::ceil_div(problem.N, plan.tile_n));
  REQUIRE(problem.M % plan.whole_m == 0);
  REQUIRE(problem.N % plan.whole_n == 0);
  const uint32_t threads = plan.spec.constants[0];  // of every linear shader
  REQUIRE(threads > 0);
  REQUIRE(threads <= info.limits.maxComputeWorkGroupInvocations);
  REQUIRE(threads <= info.limits.maxComputeWorkGroupSize[0]);
  REQUIRE(plan.spec.constants[1] == (problem.float_output ? 1U : 0U));
  if (plan.spec.requires_subgroup_size) {
    REQUIRE(info.subgroup_arithmetic);
    REQUIRE(threads % info.subgroup_size == 0);
    REQUIRE(threads / info.subgroup_size <= info.max_workgroup_subgroups);
  }
  REQUIRE((family.int_dot || !plan.spec.shader.ends_with("int_dot")));
  REQUIRE((family.matrix || plan.spec.shader.find("coopmat") == std::string_view::npos));
  REQUIRE(std::string(plan.kernel).starts_with("linear_"));
}

}  // namespace

TEST_CASE("plans: legal on every kind of device for every problem") {
  Numbers numbers(17);
  for (const DeviceInfo& info : devices_of_all_kinds()) {
    for (uint32_t features = 0; features < 8; ++features) {
      const vulkan::DisabledFeatures disabled{(features & 1U) != 0, (features & 2U) != 0,
                                              (features & 4U) != 0};
      kernels::KernelFamily family = kernels::choose_family(info, disabled);
      for (int i = 0; i < 400; ++i) {
        family.own_sums = i % 3 != 0;
        const auto size = [&](uint32_t bits) { return 1 + numbers.below(1U << (1 + numbers.below(bits))); };
        kernels::LinearProblem problem;
        problem.M = size(20);
        problem.K = std::min(size(17), static_cast<uint32_t>(kernels::kMaxK));
        problem.N = size(20);
        problem.float_output = i % 2 == 0;
        const std::vector<kernels::LinearPlan> plans = kernels::linear_candidates(info, family, problem);
        REQUIRE(!plans.empty());
        REQUIRE(plans.front().spec == kernels::plan_linear(info, family, problem).spec);
        std::set<std::string> variants;
        for (const kernels::LinearPlan& plan : plans) {
          check_plan(info, family, plan, problem);
          REQUIRE(variants.insert(kernels::variant_of(plan)).second);
        }
        kernels::LinearProblem in_tiles = problem;
        in_tiles.weight_order = kernels::PackOrder::tiles;
        std::set<std::string> readers;
        for (const kernels::LinearPlan& plan : kernels::linear_candidates(info, family, in_tiles)) {
          check_plan(info, family, plan, in_tiles);
          check_reads_tiles(plan, in_tiles);
          REQUIRE(variants.contains(kernels::variant_of(plan)));
          readers.insert(kernels::variant_of(plan));
        }
        for (const kernels::LinearPlan& plan : plans) {
          REQUIRE((!plan.faster_in_tiles || readers.contains(kernels::variant_of(plan))));
        }
      }
    }
  }
}

TEST_CASE("plans: the tile that an H200 is the fastest with") {
  using Tile = std::pair<uint32_t, uint32_t>;
  const auto tile = [](const DeviceInfo& info, uint32_t M, uint32_t K, uint32_t N) {
    kernels::LinearProblem problem;
    problem.M = M;
    problem.K = K;
    problem.N = N;
    const kernels::LinearPlan plan = kernels::plan_linear(info, kernels::choose_family(info, {}), problem);
    return Tile{plan.tile_m, plan.tile_n};
  };
  SUBCASE("cooperative matrices") {
    const DeviceInfo info = devices_of_all_kinds().at(7);
    CHECK(tile(info, 128, 4096, 1024) == Tile{32, 32});     // 10.6 us; the second best takes 13.0
    CHECK(tile(info, 128, 4096, 2048) == Tile{32, 64});     // 13.5; 17.2
    CHECK(tile(info, 256, 2048, 2048) == Tile{64, 64});     // 10.6
    CHECK(tile(info, 256, 1024, 4096) == Tile{128, 64});    // 9.6; 12.6 with tiles of 64x64
    CHECK(tile(info, 1024, 1024, 1024) == Tile{128, 64});   // 8.5; 11.5
    CHECK(tile(info, 768, 1024, 2048) == Tile{128, 128});   // 11.5; 16.8
    CHECK(tile(info, 768, 1024, 4096) == Tile{128, 256});   // 19.1; 21.2 with tiles of 128x128
    CHECK(tile(info, 4096, 4096, 4096) == Tile{128, 256});  // 188
  }
  SUBCASE("dot products") {
    const DeviceInfo info = described("no matrices", VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU, 32, 1024, 49152);
    CHECK(tile(info, 128, 1024, 1024) == Tile{16, 64});     // 7.8; 10.1 with tiles of 32x64
    CHECK(tile(info, 256, 1024, 1024) == Tile{32, 64});     // 10.3; 10.8 with tiles of 16x64
    CHECK(tile(info, 1024, 1024, 1024) == Tile{64, 64});    // 26.4; 48 with tiles of 128x128
    CHECK(tile(info, 768, 4096, 4096) == Tile{64, 64});     // 268; 355
    CHECK(tile(info, 1024, 2048, 2048) == Tile{128, 128});  // 91
  }
}

TEST_CASE("plans: software devices do not compile loops that are unrolled") {
  constexpr size_t kUnroll = 6;
  const DeviceInfo info = described("software", VK_PHYSICAL_DEVICE_TYPE_CPU, 8, 1024, 65536);
  const kernels::KernelFamily family = kernels::choose_family(info, {});
  kernels::LinearProblem problem;
  problem.K = 512;
  for (const uint32_t size : {40U, 300U, 1000U, 3000U}) {
    problem.M = problem.N = size;
    const kernels::LinearPlan plan = kernels::plan_linear(info, family, problem);
    REQUIRE(plan.spec.shader.starts_with("linear_gemm."));
    CHECK(plan.spec.constants[kUnroll] == 1);
  }
}

TEST_CASE("plans: large products of cooperative matrices are faster of weights in tiles") {
  const DeviceInfo info = devices_of_all_kinds().at(7);
  const kernels::KernelFamily family = kernels::choose_family(info, {});
  const auto faster = [&](uint32_t M, uint32_t K, uint32_t N) {
    kernels::LinearProblem problem;
    problem.M = M;
    problem.K = K;
    problem.N = N;
    return kernels::plan_linear(info, family, problem).faster_in_tiles;
  };
  CHECK(faster(4096, 4096, 4096));
  CHECK(faster(1024, 4096, 4096));
  CHECK(faster(1000, 4095, 4080));
  CHECK_FALSE(faster(1025, 4095, 4112));  // a few tiles more than run at once: smaller ones are faster
  CHECK_FALSE(faster(1024, 4096, 4095));  // lanes cannot finish the sums that they hold
  CHECK_FALSE(faster(256, 4096, 4096));
  CHECK_FALSE(faster(4, 65536, 1 << 20));  // another kernel
}

}  // namespace q8ta::test
