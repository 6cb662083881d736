#include "kernels/warning.h"

#include <atomic>
#include <cstdio>

namespace q8ta::kernels {
namespace {

void print(const std::string& message) { std::fprintf(stderr, "%s\n", message.c_str()); }

std::atomic<WarningHandler> warning_handler{&print};

}  // namespace

void set_warning_handler(WarningHandler handler) { warning_handler = handler; }

void warn(const std::string& message) { warning_handler.load()("q8ta_ops: " + message); }

}  // namespace q8ta::kernels
