#include "threads.h"

#include <algorithm>
#include <stdexcept>

#include "kernels/layout.h"

namespace q8ta::test {

void require(bool condition, const char* what) {
  if (!condition) throw std::runtime_error(what);
}

kernels::HostThreads host_threads(int64_t count) {
  return {count, [count](int64_t items, int64_t grain, const auto& work) {
            const int64_t part = std::max(grain, kernels::ceil_div(items, count));
            std::vector<std::thread> threads;
            for (int64_t begin = 0; begin < items; begin += part) {
              threads.emplace_back([&work, begin, end = std::min(begin + part, items)] { work(begin, end); });
            }
            for (std::thread& thread : threads) thread.join();
          }};
}

}  // namespace q8ta::test
