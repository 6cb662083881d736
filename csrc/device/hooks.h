#pragma once

namespace q8ta::device {

/// Registers what torch asks a device backend in general: how many devices there are, which one is current.
void register_hooks();

}  // namespace q8ta::device
