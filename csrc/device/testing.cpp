// What tests look at on devices, too, whose kernels do not read it.
#include <torch/library.h>

#include "device/packed_weights.h"

namespace q8ta::device {
namespace {

TORCH_LIBRARY(q8ta_vk_testing, library) { library.def("weights_in_tiles(Tensor weights) -> Tensor?"); }

TORCH_LIBRARY_IMPL(q8ta_vk_testing, PrivateUse1, library) {
  library.impl("weights_in_tiles", TORCH_FN(weights_in_tiles));
}

}  // namespace
}  // namespace q8ta::device
