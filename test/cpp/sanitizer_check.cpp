// sanitizer_check <fault>: commits one fault, in the library's own code where its interface allows that, for
// the sanitizer to report. A report ends the program, so the last line is printed only if there was none.
#include <cstdint>
#include <cstdio>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "kernels/host_packed_weights.h"
#include "kernels/pack.h"
#include "kernels/pack_host_memory.h"

namespace {

using q8ta::kernels::HostPackedWeights;
using q8ta::kernels::Layout;

void over_read() {
  const std::vector<int8_t> rows(63);
  std::vector<int32_t> words(16);
  q8ta::kernels::host_pack({1, 1, 64}, Layout::packed_int8_4w, rows.data(), words.data());
}

void use_after_free() {
  auto rows = std::make_unique<std::vector<int8_t>>(64);
  const int8_t* gone = rows->data();
  rows.reset();
  std::vector<int32_t> words(16);
  q8ta::kernels::host_pack({1, 1, 64}, Layout::packed_int8_4w, gone, words.data());
}

/// Found when the program ends.
void leak() { static_cast<void>(std::make_unique<HostPackedWeights>(64, 64).release()); }

void signed_overflow() {
  constexpr int64_t kHuge = int64_t{1} << 40;
  // Volatile: the function is inline, and a compiler drops it together with a result that nobody reads.
  volatile int64_t words =
      q8ta::kernels::packed_words({kHuge, kHuge, kHuge}, q8ta::kernels::PackOrder::padded_rows);
  (void)words;
}

void float_cast() {
  volatile float large = 1000.0F;
  volatile int8_t q = static_cast<int8_t>(large);
  (void)q;
}

void misaligned() {
  const std::vector<int8_t> bytes(8);
  volatile size_t offset = 1;
  volatile int32_t word = *reinterpret_cast<const int32_t*>(bytes.data() + offset);
  (void)word;
}

void race() {
  const std::vector<int8_t> rows(4096);
  std::vector<int32_t> words(1024);
  std::vector<std::thread> threads;
  for (int i = 0; i < 2; ++i) {
    threads.emplace_back(
        [&] { q8ta::kernels::host_pack({1, 64, 64}, Layout::packed_int8_4w, rows.data(), words.data()); });
  }
  for (std::thread& thread : threads) thread.join();
}

void lock_order() {
  std::mutex a;
  std::mutex b;
  const auto lock_both = [](std::mutex& first, std::mutex& second) {
    const std::lock_guard outer(first);
    const std::lock_guard inner(second);
  };
  std::thread(lock_both, std::ref(a), std::ref(b)).join();
  std::thread(lock_both, std::ref(b), std::ref(a)).join();
}

}  // namespace

int main(int argc, char** argv) {
  const std::map<std::string, void (*)()> faults{{"over_read", over_read},
                                                 {"use_after_free", use_after_free},
                                                 {"leak", leak},
                                                 {"signed_overflow", signed_overflow},
                                                 {"float_cast", float_cast},
                                                 {"misaligned", misaligned},
                                                 {"race", race},
                                                 {"lock_order", lock_order}};
  const std::string fault = argc == 2 ? argv[1] : "";
  if (!faults.contains(fault)) {
    std::fprintf(stderr, "usage: sanitizer_check <fault>\n");
    return 2;
  }
  faults.at(fault)();
  if (fault != "leak") std::printf("%s went unnoticed\n", fault.c_str());
  return 0;
}
