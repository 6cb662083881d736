#include "vulkan/graph.h"

#include <utility>

#include "vulkan/context.h"
#include "vulkan/device_stream.h"
#include "vulkan/error.h"
#include "vulkan/fork.h"

namespace q8ta::vulkan {

Graph::~Graph() {
  if (inherited_by_fork() || Context::is_closed()) return;
  if (capture_ && Capture::of_this_thread() == capture_.get()) capture_->end();
  if (captured_) device_->stream().remove_graph(recorded_);
}

void Graph::begin_capture(Device& device) {
  const std::lock_guard lock(mutex_);
  if (capture_) throw Error("this graph is being captured already");
  if (captured_) throw Error("this graph has been captured already: reset() it first");
  capture_ = Capture::begin(device);
  device_ = &device;
}

void Graph::end_capture() {
  const std::lock_guard lock(mutex_);
  if (!capture_) throw Error("this graph is not being captured");
  capture_->end();
  const std::shared_ptr<Capture> ended = std::exchange(capture_, nullptr);
  recorded_ = device_->stream().add_graph(*ended);
  written_ = ended->written();
  captured_ = true;
}

void Graph::give_up_capture() {
  const std::lock_guard lock(mutex_);
  if (!capture_) return;
  capture_->end();
  capture_.reset();
}

std::shared_ptr<const BufferIds> Graph::replay() {
  const std::lock_guard lock(mutex_);
  check_not_forked();
  if (!captured_) throw Error("this graph has nothing to replay: capture it first");
  device_->stream().replay(recorded_);
  return written_;
}

void Graph::reset() {
  const std::lock_guard lock(mutex_);
  check_not_forked();
  if (capture_) throw Error("this graph is being captured");
  if (!captured_) return;
  captured_ = false;
  device_->stream().remove_graph(recorded_);
  recorded_.reset();
}

}  // namespace q8ta::vulkan
