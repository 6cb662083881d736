#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <string>
#include <unordered_set>
#include <vector>

#include "vulkan/hazard_tracker.h"
#include "vulkan/memory_pool.h"
#include "vulkan/profiler.h"
#include "vulkan/recorder.h"

namespace q8ta::vulkan {

/// Buffers, by their Buffer's id.
using BufferIds = std::unordered_set<uint64_t>;

/// What a thread records between the beginning and the end of a graph's capture, instead of queueing it.
class Capture final : public Recorder {
 public:
  explicit Capture(Device& device) : device_(device) {}
  /// What is not taken from it is given up.
  ~Capture() override;
  Capture(const Capture&) = delete;
  Capture& operator=(const Capture&) = delete;

  /// From now on the calling thread's work on the device goes into the capture. Throws Error if it is in one
  /// already.
  static std::shared_ptr<Capture> begin(Device& device);
  /// Throws Error if the calling thread is not in this capture.
  void end();

  /// The capture that the calling thread is in; null if there is none, or if it is another device's.
  static Capture* of_this_thread(const Device& device) { return any() ? find(device) : nullptr; }
  static Capture* of_this_thread() { return any() ? find() : nullptr; }

  /// Whether some thread is in a capture.
  static bool any() { return count.load(std::memory_order_relaxed) > 0; }

  /// Records the work of one op, all of it or, if it throws, nothing.
  template <typename Work>
  void record(Work work) {
    const size_t before = commands_.size();
    try {
      work(static_cast<Recorder&>(*this));
    } catch (...) {
      give_up_op(before);
      throw;
    }
    end_op();
  }

  Device& device() override { return device_; }
  void dispatch(const Pipeline& pipeline, std::initializer_list<Binding> bindings,
                std::span<const std::byte> push_constants, uint32_t workgroups,
                const DispatchLabel& label) override;
  void copy(const BufferRange& from, const BufferRange& to, const DispatchLabel& label) override;
  BufferRange scratch(VkDeviceSize bytes) override;

  /// Throws Error: the op that the thread is in does something that a graph cannot repeat.
  [[noreturn]] void refuse(const char* what) const;

  /// The ops that the thread is in, the outermost first; for refuse().
  std::vector<std::string>& ops() { return ops_; }

  const std::vector<Command>& commands() const { return commands_; }
  const std::vector<DispatchLabel>& labels() const { return labels_; }   // of the commands
  std::shared_ptr<const BufferIds> written() const { return written_; }  // by the commands
  MemoryPool::GraphMemory& memory() { return memory_; }

 private:
  static std::atomic<int> count;
  static Capture* find(const Device& device);
  static Capture* find();

  void append(Command command, std::span<const Binding> bindings, const DispatchLabel& label);
  void give_up_op(size_t kept_commands);
  void end_op();

  Device& device_;
  bool active_ = false;
  std::vector<Command> commands_;
  std::vector<DispatchLabel> labels_;
  std::shared_ptr<BufferIds> written_ = std::make_shared<BufferIds>();
  HazardTracker hazards_;
  MemoryPool::GraphMemory memory_;
  std::vector<DeviceBlock*> scratch_;  // of the op that is recorded
  std::vector<std::string> ops_;
};

}  // namespace q8ta::vulkan
