#pragma once

#include <c10/core/Allocator.h>

namespace q8ta::device {

/// Host memory for what torch calls pinned: the CPU's own, since everything goes through staging memory. It
/// only remembers what it has handed out, for is_pinned().
c10::Allocator& pinned_allocator();

/// Whether an address is in memory of that allocator which is in use.
bool is_pinned(const void* address);

}  // namespace q8ta::device
