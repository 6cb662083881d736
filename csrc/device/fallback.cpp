#include "device/fallback.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/native/CPUFallback.h>
#include <torch/library.h>

#include <mutex>
#include <optional>

#include "device/messages.h"

namespace q8ta::device {
namespace {

struct Counts {
  std::mutex mutex;
  std::map<std::string, uint64_t> since_reset;
  std::map<std::string, uint64_t> ever;
};

Counts& counts() {
  static Counts instance;
  return instance;
}

/// What torch's own backends say to tensors that are on several devices. The fallback alone would compute.
void check_same_device(const c10::OperatorHandle& op, const torch::jit::Stack& stack) {
  const c10::FunctionSchema& schema = op.schema();
  const auto arguments = torch::jit::last(stack, schema.arguments().size());
  std::optional<c10::Device> device;
  const auto each_tensor = [&](auto visit) {
    for (size_t i = 0; i < arguments.size(); ++i) {
      const c10::Argument& argument = schema.arguments()[i];
      if (arguments[i].isTensor()) {
        visit(argument, arguments[i].toTensor());
      } else if (arguments[i].isTensorList()) {
        for (const at::Tensor& tensor : arguments[i].toTensorVector()) visit(argument, tensor);
      }  // lists of optional tensors are indices, which may be on the CPU
    }
  };
  each_tensor([&](const c10::Argument&, const at::Tensor& tensor) {
    if (!device && tensor.defined() && tensor.is_privateuseone()) device = tensor.device();
  });
  if (!device) return;
  each_tensor([&](const c10::Argument& argument, const at::Tensor& tensor) {
    if (!tensor.defined() || tensor.device() == *device) return;
    const bool written = argument.alias_info() != nullptr && argument.alias_info()->isWrite();
    const bool number = tensor.is_cpu() && !written && (tensor.dim() == 0 || argument.name() == "scalars");
    TORCH_CHECK(number,
                message("Expected all tensors to be on the same device, but found at least two devices, ",
                        *device, " and ", tensor.device(), "! (when checking argument for argument ",
                        argument.name(), " in method ", schema.name(), ")"));
  });
}

/// The operator to call with CPU tensors: convolutions of other backends come by a name that the CPU lacks.
c10::OperatorHandle cpu_operator(const std::string& name, const c10::OperatorHandle& op,
                                 torch::jit::Stack& stack) {
  if (name == "aten::convolution_overrideable") {
    return c10::Dispatcher::singleton().findSchemaOrThrow("aten::convolution", "");
  }
  if (name == "aten::convolution_backward_overrideable") {
    // (grad_output, input, weight, ...): the CPU's operator takes the sizes of the bias behind them.
    constexpr size_t kArguments = 10;
    const auto arguments = stack.end() - kArguments;
    const int64_t channels = arguments[0].toTensor().size(1);
    stack.insert(arguments + 3, c10::IValue(std::vector<int64_t>{channels}));
    return c10::Dispatcher::singleton().findSchemaOrThrow("aten::convolution_backward", "");
  }
  return op;
}

}  // namespace

void count_fallback(const std::string& name) {
  bool first = false;
  {
    const std::lock_guard lock(counts().mutex);
    ++counts().since_reset[name];
    first = ++counts().ever[name] == 1;
  }
  if (first) {
    TORCH_WARN("vk: " + name +
               " has no kernel on the device and runs on the CPU, which copies its tensors there and back. "
               "torch.vk.fallbacks() counts how often; this is said once for each operator.");
  }
}

void run_on_cpu(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const std::string name = c10::toString(op.operator_name());
  TORCH_CHECK_NOT_IMPLEMENTED(!name.starts_with("q8ta::"),
                              name + " has no kernel for the vk device, and does not run on the CPU instead");
  if (name.starts_with("aten::")) check_same_device(op, *stack);
  count_fallback(name);
  at::native::cpu_fallback(cpu_operator(name, op, *stack), stack);
}

namespace {

TORCH_LIBRARY_IMPL(_, PrivateUse1, library) {
  library.fallback(torch::CppFunction::makeFromBoxedFunction<&run_on_cpu>());
}

// Operators that torch would otherwise take apart for us, or refuse.
TORCH_LIBRARY_IMPL(aten, PrivateUse1, library) {
  for (const char* name : {"convolution_overrideable", "convolution_backward_overrideable", "mse_loss",
                           "native_group_norm", "native_layer_norm", "smooth_l1_loss"}) {
    library.impl(name, torch::CppFunction::makeFromBoxedFunction<&run_on_cpu>());
  }
}

TORCH_LIBRARY_IMPL(_, AutocastPrivateUse1, library) {
  library.fallback(torch::CppFunction::makeFallthrough());
}

}  // namespace

std::map<std::string, uint64_t> fallback_counts() {
  const std::lock_guard lock(counts().mutex);
  return counts().since_reset;
}

void reset_fallback_counts() {
  const std::lock_guard lock(counts().mutex);
  counts().since_reset.clear();
}

}  // namespace q8ta::device
