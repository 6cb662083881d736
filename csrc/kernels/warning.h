#pragma once

#include <string>

namespace q8ta::kernels {

/// Where warnings go; until it is set, to stderr. Called with locks held: it must not wait for anyone.
using WarningHandler = void (*)(const std::string& message);
void set_warning_handler(WarningHandler handler);

/// Tells the user something that is no error.
void warn(const std::string& message);

}  // namespace q8ta::kernels
