#pragma once

#include <ATen/core/stack.h>

namespace q8ta::device {

/// Takes an operator's arguments, the last `count` values, off the stack.
///
/// A caller in Python has released the GIL, and torch takes it again for each tensor that only a Python
/// object has then: five times in a call of linear, which together cost as much as all that the operator does
/// itself. Here it is taken once for all of them, and where none needs it not at all.
void drop_arguments(torch::jit::Stack& stack, size_t count);

}  // namespace q8ta::device
