#pragma once

#include <exception>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "kernels/host_gemm.h"

namespace q8ta::test {

/// Runs work(0) .. work(count - 1), each in a thread, and returns what the first exception said; empty if
/// there was none. Assertions of the test framework belong behind the end of the threads.
template <typename Work>
std::string failure_in_threads(int count, const Work& work) {
  std::mutex mutex;
  std::string failure;
  std::vector<std::thread> threads;
  for (int i = 0; i < count; ++i) {
    threads.emplace_back([&, i] {
      try {
        work(i);
      } catch (const std::exception& error) {
        const std::lock_guard lock(mutex);
        if (failure.empty()) failure = error.what();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  return failure;
}

/// Throws what failure_in_threads reports.
void require(bool condition, const char* what);

/// `count` threads for the host kernel, started for every call.
kernels::HostThreads host_threads(int64_t count);

}  // namespace q8ta::test
