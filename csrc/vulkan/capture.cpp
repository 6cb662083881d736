#include "vulkan/capture.h"

#include <array>

#include "vulkan/context.h"
#include "vulkan/device.h"
#include "vulkan/error.h"
#include "vulkan/fork.h"
#include "vulkan/make_room.h"

namespace q8ta::vulkan {
namespace {

// Shared, so that a capture whose owner is gone, or in another thread, is still there.
thread_local std::shared_ptr<Capture> current;

}  // namespace

std::atomic<int> Capture::count{0};

std::shared_ptr<Capture> Capture::begin(Device& device) {
  check_not_forked();
  if (current) throw Error("this thread is capturing a graph already");
  current = std::make_shared<Capture>(device);
  current->active_ = true;
  ++count;
  return current;
}

void Capture::end() {
  if (current.get() != this) throw Error("this thread is not the one that captures the graph");
  const std::shared_ptr<Capture> ended = std::move(current);
  current = nullptr;
  active_ = false;
  --count;
  device_.memory().end_capture(memory_);
}

Capture::~Capture() {
  if (active_) --count;  // its thread has ended
  if (inherited_by_fork() || Context::is_closed()) return;
  device_.memory().end_capture(memory_);
  device_.memory().release(memory_);
}

Capture* Capture::find(const Device& device) {
  return current && &current->device_ == &device ? current.get() : nullptr;
}

Capture* Capture::find() { return current.get(); }

void Capture::dispatch(const Pipeline& pipeline, std::initializer_list<Binding> bindings,
                       std::span<const std::byte> push_constants, uint32_t workgroups,
                       const DispatchLabel& label) {
  append(dispatch_command(device_, pipeline, bindings, push_constants, workgroups, label.kernel),
         {bindings.begin(), bindings.size()}, label);
}

void Capture::copy(const BufferRange& from, const BufferRange& to, const DispatchLabel& label) {
  append(copy_command(from, to), std::array<Binding, 2>{Binding{from}, Binding{to, true}}, label);
}

BufferRange Capture::scratch(VkDeviceSize bytes) {
  make_room(scratch_);
  scratch_.push_back(device_.memory().allocate(bytes));
  return scratch_.back()->buffer().range().subrange(0, round_up(bytes, 4));
}

void Capture::append(Command command, std::span<const Binding> bindings, const DispatchLabel& label) {
  command.barrier_before = hazards_.needs_barrier(bindings);
  for (const Binding& binding : bindings) {
    device_.memory().use(memory_, binding.range.buffer_id);
    if (binding.written) written_->insert(binding.range.buffer_id);
  }
  commands_.push_back(command);
  labels_.push_back(label);
}

void Capture::give_up_op(size_t kept_commands) {
  hazards_.touch_everything();  // a barrier may be among what goes
  commands_.resize(kept_commands);
  labels_.resize(kept_commands);
  end_op();
}

void Capture::end_op() {
  for (DeviceBlock* block : scratch_) device_.memory().free(block);
  scratch_.clear();
}

void Capture::refuse(const char* what) const {
  std::string op = ops_.empty() ? "this" : ops_.front();
  if (ops_.size() > 1 && ops_.back() != ops_.front()) op += " (" + ops_.back() + ")";
  throw Error(op + " cannot be captured in a graph: it " + what +
              ". Do it before or after the capture; an operator without a kernel on the device "
              "(torch.vk.fallbacks()) does it for its tensors");
}

}  // namespace q8ta::vulkan
