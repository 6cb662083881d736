#include "ops/pack.h"

#include "kernels/pack_host_memory.h"
#include "kernels/weight_cache.h"
#include "ops/checks.h"
#include "ops/pack_checks.h"
#include "vulkan/profiler.h"
#include "vulkan/selection.h"

namespace q8ta::ops {
namespace {

/// The device that packs these matrices, null for the host.
vulkan::Device* packing_device(const kernels::Matrices& matrices) {
  vulkan::Device* device = vulkan::current_selection()->device;
  return device != nullptr && kernels::device_can_pack(*device, matrices) ? device : nullptr;
}

void profile_host(const char* op, const char* kernel, const kernels::Matrices& matrices) {
  auto& profiler = vulkan::Profiler::instance();
  if (!profiler.enabled()) return;
  profiler.add({{op, kernel, static_cast<uint32_t>(matrices.count * matrices.rows),
                 static_cast<uint32_t>(matrices.columns), 0},
                0,
                std::nullopt});
}

}  // namespace

Tensor pack(const Tensor& x, int64_t layout_id) {
  const kernels::Layout layout = check_layout("pack", layout_id);
  check_on_cpu("pack", "x", x);
  const kernels::Matrices matrices = check_pack(x);
  Tensor packed = torch::stable::new_empty(x, packed_sizes(sizes_of(x), layout), ScalarType::Int);
  if (x.numel() == 0) return packed;
  const Tensor dense = made_contiguous(x);
  const auto* rows = static_cast<const int8_t*>(dense.const_data_ptr());
  auto* words = static_cast<int32_t*>(packed.mutable_data_ptr());
  if (vulkan::Device* device = packing_device(matrices)) {
    kernels::with_spare_memory([&] { kernels::run_pack(*device, matrices, layout, rows, words); });
  } else {
    kernels::host_pack(matrices, layout, rows, words);
    profile_host("pack", "host/pack", matrices);
  }
  return packed;
}

Tensor unpack(const Tensor& packed, int64_t layout_id, const std::vector<int64_t>& sizes) {
  const kernels::Layout layout = check_layout("unpack", layout_id);
  check_on_cpu("unpack", "packed", packed);
  const kernels::Matrices matrices = check_unpack(packed, layout, sizes);
  Tensor x = torch::stable::new_empty(packed, sizes, ScalarType::Char);
  if (matrices.bytes() == 0) return x;
  const Tensor dense = made_contiguous(packed);
  const auto* words = static_cast<const int32_t*>(dense.const_data_ptr());
  auto* rows = static_cast<int8_t*>(x.mutable_data_ptr());
  if (vulkan::Device* device = packing_device(matrices)) {
    kernels::with_spare_memory([&] { kernels::run_unpack(*device, matrices, layout, words, rows); });
  } else {
    kernels::host_unpack(matrices, layout, words, rows);
    profile_host("unpack", "host/unpack", matrices);
  }
  return x;
}

}  // namespace q8ta::ops
