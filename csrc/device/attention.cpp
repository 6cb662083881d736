// Which implementation scaled_dot_product_attention takes for vk tensors: the one that it takes for CPU
// tensors, which runs there, as any operator without a kernel does. The default of other backends rounds
// differently and gives the result other strides.
#include <ATen/native/transformers/attention.h>
#include <ATen/ops/_fused_sdp_choice_native.h>

namespace at::native {
namespace {

REGISTER_PRIVATEUSE1_DISPATCH(_fused_sdp_choice_stub, &_fused_sdp_choice_cpp)

}  // namespace
}  // namespace at::native
