#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <cstdio>
#include <cstdlib>

#include "kernels/host_weight_cache.h"
#include "kernels/weight_cache.h"
#include "vulkan/context.h"
#include "vulkan/selection.h"
#include "vulkan/validation.h"

/// Beside the tests, what the validation layer has said fails (Q8TA_VALIDATION=1), leaks included.
int main(int argc, char** argv) {
  setenv("Q8TA_TUNE_CACHE", "/nonexistent/tuning.txt", 0);  // not what a developer has tuned
  doctest::Context context(argc, argv);
  int result = context.run();
  q8ta::vulkan::forget_selection();
  q8ta::kernels::HostWeightCache::instance().clear();
  q8ta::kernels::WeightCache::instance().clear();
  q8ta::vulkan::Context::close_if_validating();
  for (const std::string& message : q8ta::vulkan::validation_messages()) {
    std::fprintf(stderr, "%s\n", message.c_str());
    result = 1;
  }
  return result;
}
