#include "vulkan/process_exit.h"

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <thread>

namespace q8ta::vulkan {
namespace {

using std::chrono::steady_clock;

constexpr size_t kCounters = 64;
constexpr auto kLongestWait = std::chrono::seconds(5);  // a GPU that hangs must not keep the process

/// Calls that are under way, of every kCounters-th thread: one counter for all would slow each of them down.
struct alignas(64) Counter {
  std::atomic<int> calls{0};
};
std::array<Counter, kCounters> counters;

std::atomic<bool> closed{false};
std::atomic<std::thread::id> last_thread;

Counter& counter_of_this_thread() {
  static std::atomic<size_t> threads{0};
  thread_local const size_t number = threads++;
  return counters[number % kCounters];
}

[[noreturn]] void wait_for_the_end() {
  for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
}

/// A call of the driver. Either it is seen by whoever closes the driver, or it sees that the driver is
/// closed.
class Call {
 public:
  Call() : counter_(counter_of_this_thread()) {
    counter_.calls.fetch_add(1);
    if (closed.load() && last_thread.load() != std::this_thread::get_id()) {
      counter_.calls.fetch_sub(1);
      wait_for_the_end();
    }
  }
  ~Call() { counter_.calls.fetch_sub(1); }
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

 private:
  Counter& counter_;
};

template <auto member>
struct Watched;

/// A function of the table. There is no place for a second driver's, which stay as they are.
template <typename Result, typename... Arguments, Result (VKAPI_PTR* VolkDeviceTable::*member)(Arguments...)>
struct Watched<member> {
  using Function = Result(VKAPI_PTR*)(Arguments...);
  static inline std::atomic<Function> of_driver{nullptr};

  static Result VKAPI_CALL call(Arguments... arguments) {
    const Call call;
    return of_driver.load(std::memory_order_relaxed)(arguments...);
  }

  static void put_into(VolkDeviceTable& table) {
    Function first = nullptr;
    const Function given = table.*member;
    if (given == nullptr) return;
    if (of_driver.compare_exchange_strong(first, given) || first == given) table.*member = &call;
  }
};

template <auto... members>
void watch(VolkDeviceTable& table) {
  (Watched<members>::put_into(table), ...);
}

bool calls_are_under_way() {
  for (const Counter& counter : counters) {
    if (counter.calls.load() != 0) return true;
  }
  return false;
}

}  // namespace

void watch_driver_calls(VolkDeviceTable& table) {
  using Table = VolkDeviceTable;
  watch<&Table::vkAllocateCommandBuffers, &Table::vkAllocateDescriptorSets, &Table::vkAllocateMemory,
        &Table::vkBeginCommandBuffer, &Table::vkBindBufferMemory, &Table::vkCmdBindDescriptorSets,
        &Table::vkCmdBindPipeline, &Table::vkCmdCopyBuffer, &Table::vkCmdDispatch, &Table::vkCmdFillBuffer,
        &Table::vkCmdPipelineBarrier, &Table::vkCmdPushConstants, &Table::vkCmdResetQueryPool,
        &Table::vkCmdWriteTimestamp, &Table::vkCreateBuffer, &Table::vkCreateCommandPool,
        &Table::vkCreateComputePipelines, &Table::vkCreateDescriptorPool, &Table::vkCreateDescriptorSetLayout,
        &Table::vkCreateFence, &Table::vkCreatePipelineCache, &Table::vkCreatePipelineLayout,
        &Table::vkCreateQueryPool, &Table::vkCreateShaderModule, &Table::vkDestroyBuffer,
        &Table::vkDestroyCommandPool, &Table::vkDestroyDescriptorPool, &Table::vkDestroyDescriptorSetLayout,
        &Table::vkDestroyFence, &Table::vkDestroyPipeline, &Table::vkDestroyPipelineCache,
        &Table::vkDestroyPipelineLayout, &Table::vkDestroyQueryPool, &Table::vkDestroyShaderModule,
        &Table::vkEndCommandBuffer, &Table::vkFlushMappedMemoryRanges, &Table::vkFreeCommandBuffers,
        &Table::vkFreeMemory, &Table::vkGetFenceStatus, &Table::vkGetMemoryHostPointerPropertiesEXT,
        &Table::vkGetQueryPoolResults, &Table::vkInvalidateMappedMemoryRanges, &Table::vkMapMemory,
        &Table::vkQueueSubmit, &Table::vkQueueWaitIdle, &Table::vkResetFences, &Table::vkUnmapMemory,
        &Table::vkUpdateDescriptorSets, &Table::vkWaitForFences>(table);
}

void close_driver_to_other_threads() noexcept {
  last_thread.store(std::this_thread::get_id());
  closed.store(true);
  const auto end = steady_clock::now() + kLongestWait;
  while (calls_are_under_way() && steady_clock::now() < end) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

}  // namespace q8ta::vulkan
