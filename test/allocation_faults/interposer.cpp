// Preloaded into a test's process: lets allocations of chosen libraries fail, each call site in turn.
//
// A call site is the chain of return addresses that lie in those libraries. Between begin() and end() the
// first allocation whose call site has not failed before fails: operator new throws std::bad_alloc, malloc
// and its kin return null. So a caller that repeats its work until nothing fails any more has met every call
// site once, also those that are only reached while caches are cold.
#include <link.h>
#include <unwind.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>

extern "C" {
// What glibc's own functions are called where their names are taken.
void* __libc_malloc(size_t bytes);
void* __libc_calloc(size_t count, size_t bytes);
void* __libc_realloc(void* memory, size_t bytes);
void* __libc_memalign(size_t alignment, size_t bytes);
}

namespace {

constexpr size_t kMostRanges = 32;
constexpr size_t kMostFrames = 24;
constexpr size_t kSeenSlots = size_t{1} << 16;

/// Code of a library.
struct Range {
  uintptr_t begin = 0, end = 0, base = 0;
  const char* library = "";

  bool contains(uintptr_t address) const { return begin <= address && address < end; }
};

// Fixed memory: what counts allocations must not allocate. Written while nothing is armed.
std::array<Range, kMostRanges> watched;
size_t watched_count = 0;
Range standard_library;  // allocates for its callers: strings

std::atomic<bool> armed{false};
std::atomic<bool> failed{false};
std::atomic<bool> paused{false};
std::atomic<unsigned> calls{0};
unsigned stride = 1;
unsigned phase = 0;
unsigned most_occurrences = 1;
bool told = false;

std::atomic_flag table_is_locked = ATOMIC_FLAG_INIT;
std::array<uint64_t, kSeenSlots> seen{};  // call sites that have failed, by their hash
struct Occurrences {
  uint64_t site = 0;
  unsigned attempt = 0, count = 0;
};
std::array<Occurrences, kSeenSlots> occurrences;  // of a call site, since begin()
unsigned attempt = 0;
std::array<char, 4096> where{};

const Range* library_of(uintptr_t address) {
  const auto end = watched.begin() + watched_count;
  const auto found =
      std::find_if(watched.begin(), end, [address](const Range& range) { return range.contains(address); });
  return found == end ? nullptr : &*found;
}

struct Frames {
  std::array<uintptr_t, kMostFrames> addresses{};
  size_t count = 0;
};

_Unwind_Reason_Code add_frame(_Unwind_Context* context, void* data) {
  auto& frames = *static_cast<Frames*>(data);
  if (frames.count == kMostFrames) return _URC_END_OF_STACK;
  frames.addresses[frames.count++] = _Unwind_GetIP(context);
  return _URC_NO_REASON;
}

/// The watched frames around the call; none if somebody else's code made it.
Frames watched_frames(uintptr_t caller) {
  Frames all;
  _Unwind_Backtrace(&add_frame, &all);
  Frames ours;
  bool reached = false;
  for (size_t i = 0; i < all.count; ++i) {
    const uintptr_t address = all.addresses[i];
    if (!reached && address != caller) continue;  // frames of this file
    if (!reached || ours.count == 0) {
      reached = true;
      if (standard_library.contains(address)) continue;
      if (library_of(address) == nullptr) return {};
    }
    if (library_of(address) != nullptr) ours.addresses[ours.count++] = address;
  }
  return ours;
}

uint64_t hash_of(const Frames& frames) {
  uint64_t hash = frames.count;
  for (size_t i = 0; i < frames.count; ++i) {
    const uintptr_t address = frames.addresses[i];
    hash = (hash ^ (address - library_of(address)->base)) * 0x9E37'79B9'7F4A'7C15U;
    hash ^= hash >> 32U;
  }
  return hash | 1U;
}

/// Adds the key; false if it was there.
bool insert(std::array<uint64_t, kSeenSlots>& table, uint64_t key) {
  for (size_t i = key % kSeenSlots;; i = (i + 1) % kSeenSlots) {
    if (table[i] == key) return false;
    if (table[i] != 0) continue;
    table[i] = key;
    return true;
  }
}

unsigned count_occurrence(uint64_t site) {
  for (size_t i = site % kSeenSlots;; i = (i + 1) % kSeenSlots) {
    Occurrences& entry = occurrences[i];
    if (entry.site != 0 && entry.site != site) continue;
    if (entry.attempt != attempt) entry = {site, attempt, 0};
    entry.site = site;
    return ++entry.count;
  }
}

void describe(const Frames& frames) {
  size_t used = 0;
  for (size_t i = 0; i < frames.count && used + 200 < where.size(); ++i) {
    const Range& range = *library_of(frames.addresses[i]);
    used += static_cast<size_t>(std::snprintf(where.data() + used, where.size() - used, "%s+0x%zx ",
                                              range.library,
                                              static_cast<size_t>(frames.addresses[i] - range.base)));
  }
}

bool should_fail(void* return_address, bool may_be_for_a_caller) {
  if (!armed || failed || paused) return false;
  const auto caller = reinterpret_cast<uintptr_t>(return_address);
  const bool candidate =
      library_of(caller) != nullptr || (may_be_for_a_caller && standard_library.contains(caller));
  if (!candidate) return false;
  const Frames frames = watched_frames(caller);
  if (frames.count == 0) return false;
  ++calls;
  const uint64_t site = hash_of(frames);
  while (table_is_locked.test_and_set()) {
  }
  const unsigned occurrence = count_occurrence(site);
  const bool chosen = occurrence <= most_occurrences && (site / 2 + phase) % stride == 0 &&
                      insert(seen, (site + occurrence * 0xD6E8'FEB8'6659'FD93U) | 1U);
  if (chosen) {
    failed = true;
    describe(frames);
    if (told) dprintf(2, "fails: %s\n", where.data());
  }
  table_is_locked.clear();
  return chosen;
}

void* allocate(size_t bytes) {
  void* memory = __libc_malloc(bytes == 0 ? 1 : bytes);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

void* allocate(size_t bytes, std::align_val_t alignment) {
  void* memory = __libc_memalign(static_cast<size_t>(alignment), bytes == 0 ? 1 : bytes);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

int add_library(dl_phdr_info* info, size_t /*size*/, void* data) {
  const char* path = info->dlpi_name;
  const char* slash = std::strrchr(path, '/');
  const char* name = slash == nullptr ? path : slash + 1;
  const bool ours = std::strstr(path, static_cast<const char*>(data)) != nullptr;
  const bool standard = std::strncmp(name, "libstdc++.so", 12) == 0;
  if (!ours && !standard) return 0;
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const ElfW(Phdr) & segment = info->dlpi_phdr[i];
    if (segment.p_type != PT_LOAD || (segment.p_flags & PF_X) == 0) continue;
    const uintptr_t begin = info->dlpi_addr + segment.p_vaddr;
    const Range range{begin, begin + segment.p_memsz, info->dlpi_addr, name};
    if (standard) {
      standard_library = range;
    } else if (watched_count < kMostRanges) {
      watched[watched_count++] = range;
    }
  }
  return 0;
}

}  // namespace

extern "C" {

/// Allocations of libraries that have `part` in their path may fail; returns how many there are by now.
size_t faults_watch(const char* part) {
  watched_count = 0;
  dl_iterate_phdr(&add_library, const_cast<char*>(part));
  return watched_count;
}

/// No call site counts as having failed; another part of them is chosen.
void faults_begin_anew() {
  seen.fill(0);
  ++phase;
}

/// From now on the next new call site fails: of every `every` sites one, each at its first `occurrences`
/// allocations since begin(). With `tell` it is written to stderr when it fails.
void faults_begin(unsigned every, unsigned occurrences_of_each, bool tell) {
  stride = every;
  told = tell;
  most_occurrences = occurrences_of_each;
  ++attempt;
  calls = 0;
  failed = false;
  where[0] = 0;
  armed = true;
}

/// Between pause(true) and pause(false) nothing fails.
void faults_pause(bool pause) { paused = pause; }

/// Returns where an allocation failed, as library+offset, the innermost first; null if none did.
const char* faults_end() {
  armed = false;
  return failed ? where.data() : nullptr;
}

/// Watched allocations since begin(), until one failed.
unsigned faults_calls() { return calls; }

void* malloc(size_t bytes) {
  if (should_fail(__builtin_return_address(0), false)) {
    errno = ENOMEM;
    return nullptr;
  }
  return __libc_malloc(bytes);
}

void* calloc(size_t count, size_t bytes) {
  if (should_fail(__builtin_return_address(0), false)) {
    errno = ENOMEM;
    return nullptr;
  }
  return __libc_calloc(count, bytes);
}

void* realloc(void* memory, size_t bytes) {
  if (should_fail(__builtin_return_address(0), false)) {
    errno = ENOMEM;
    return nullptr;
  }
  return __libc_realloc(memory, bytes);
}

int posix_memalign(void** memory, size_t alignment, size_t bytes) {
  if (should_fail(__builtin_return_address(0), false)) return ENOMEM;
  void* made = __libc_memalign(alignment, bytes);
  if (made == nullptr) return ENOMEM;
  *memory = made;
  return 0;
}

void* aligned_alloc(size_t alignment, size_t bytes) {
  if (should_fail(__builtin_return_address(0), false)) {
    errno = ENOMEM;
    return nullptr;
  }
  return __libc_memalign(alignment, bytes);
}

}  // extern "C"

void* operator new(size_t bytes) {
  if (should_fail(__builtin_return_address(0), true)) throw std::bad_alloc();
  return allocate(bytes);
}

void* operator new[](size_t bytes) {
  if (should_fail(__builtin_return_address(0), true)) throw std::bad_alloc();
  return allocate(bytes);
}

void* operator new(size_t bytes, std::align_val_t alignment) {
  if (should_fail(__builtin_return_address(0), true)) throw std::bad_alloc();
  return allocate(bytes, alignment);
}

void* operator new[](size_t bytes, std::align_val_t alignment) {
  if (should_fail(__builtin_return_address(0), true)) throw std::bad_alloc();
  return allocate(bytes, alignment);
}

void* operator new(size_t bytes, const std::nothrow_t&) noexcept {
  if (should_fail(__builtin_return_address(0), true)) return nullptr;
  return __libc_malloc(bytes == 0 ? 1 : bytes);
}

void* operator new[](size_t bytes, const std::nothrow_t&) noexcept {
  if (should_fail(__builtin_return_address(0), true)) return nullptr;
  return __libc_malloc(bytes == 0 ? 1 : bytes);
}
