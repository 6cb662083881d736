#include "vulkan/driver_fault.h"

#include <mutex>
#include <stdexcept>

namespace q8ta::vulkan {
namespace {

std::mutex fault_mutex;
std::string seeded_fault = "none";
std::string seeded_shader;

// SPIR-V: instructions follow five words of header; the first word of each is its length and its opcode.
constexpr size_t kHeaderWords = 5;
constexpr uint32_t kOpControlBarrier = 224;
constexpr uint32_t kOpGroupNonUniformIAdd = 349;
constexpr uint32_t kOpGroupNonUniformSMax = 356;
constexpr uint32_t kOpSDot = 4450;
constexpr uint32_t kOpUDot = 4451;
constexpr uint32_t kOpCooperativeMatrixMulAdd = 4459;
constexpr uint32_t kSignedFactors = 0x1 | 0x2;  // of its operands

void append(std::vector<uint32_t>& code, std::span<const uint32_t> instruction, const std::string& fault) {
  const uint32_t opcode = instruction[0] & 0xFFFFU;
  if (fault == "barrier" && opcode == kOpControlBarrier) return;
  code.insert(code.end(), instruction.begin(), instruction.end());
  uint32_t& first = code[code.size() - instruction.size()];
  const uint32_t length = first & ~0xFFFFU;
  if (fault == "int_dot" && opcode == kOpSDot) first = length | kOpUDot;
  if (fault == "subgroup" && opcode == kOpGroupNonUniformIAdd) first = length | kOpGroupNonUniformSMax;
  if (fault == "coopmat" && opcode == kOpCooperativeMatrixMulAdd) code.back() &= ~kSignedFactors;
}

}  // namespace

void seed_driver_fault(const std::string& fault, const std::string& shader) {
  for (const char* known : {"int_dot", "subgroup", "coopmat", "barrier", "none"}) {
    if (fault != known) continue;
    const std::lock_guard lock(fault_mutex);
    seeded_fault = fault;
    seeded_shader = shader;
    return;
  }
  throw std::invalid_argument("fault: expected int_dot, subgroup, coopmat, barrier or none, got '" + fault +
                              "'");
}

std::optional<std::vector<uint32_t>> with_driver_fault(std::string_view shader,
                                                       std::span<const uint32_t> code) {
  const std::lock_guard lock(fault_mutex);
  if (seeded_fault == "none" || !shader.starts_with(seeded_shader)) return std::nullopt;
  std::vector<uint32_t> faulty(code.begin(), code.begin() + kHeaderWords);
  for (size_t i = kHeaderWords; i < code.size();) {
    const size_t words = code[i] >> 16U;
    append(faulty, code.subspan(i, words), seeded_fault);
    i += words;
  }
  return faulty;
}

}  // namespace q8ta::vulkan
