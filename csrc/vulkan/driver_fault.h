#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace q8ta::vulkan {

/// For tests of the self-test alone. From now on pipelines are made as by a driver that goes wrong: in
/// modules whose names begin with `shader`,
///   "int_dot"   signed packed dot products are computed as unsigned ones,
///   "subgroup"  subgroupAdd gives the largest value instead of the sum,
///   "coopmat"   cooperative matrices of signed bytes are multiplied as unsigned ones,
///   "barrier"   barriers are left out,
///   "none"      nothing is wrong.
/// Throws std::invalid_argument for another fault.
void seed_driver_fault(const std::string& fault, const std::string& shader);

/// The module's code as the driver with the seeded fault would see it; empty if it would see what is there.
std::optional<std::vector<uint32_t>> with_driver_fault(std::string_view shader,
                                                       std::span<const uint32_t> code);

}  // namespace q8ta::vulkan
