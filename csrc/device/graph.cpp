#include "device/graph.h"

#include <memory>

#include "device/devices.h"
#include "device/packed_weights.h"

namespace q8ta::device {
namespace {

std::unique_ptr<at::ObserverContext> enter_op(const at::RecordFunction& function) {
  if (vulkan::Capture* capture = vulkan::Capture::of_this_thread()) {
    capture->ops().emplace_back(function.name());
  }
  return nullptr;
}

void leave_op(const at::RecordFunction& /*function*/, at::ObserverContext* /*context*/) {
  vulkan::Capture* capture = vulkan::Capture::of_this_thread();
  if (capture != nullptr && !capture->ops().empty()) capture->ops().pop_back();
}

}  // namespace

Graph::~Graph() { stop_naming(); }

void Graph::capture_begin() {
  graph_.begin_capture(device_at(current_device()));
  naming_ = at::addThreadLocalCallback(
      at::RecordFunctionCallback(&enter_op, &leave_op).scopes({at::RecordScope::FUNCTION}));
}

void Graph::stop_naming() {
  if (naming_ != at::INVALID_CALLBACK_HANDLE) at::removeCallback(naming_);
  naming_ = at::INVALID_CALLBACK_HANDLE;
}

void Graph::end(void (vulkan::Graph::*how)()) {
  try {
    (graph_.*how)();
  } catch (...) {
    if (graph_.capture() == nullptr) stop_naming();
    throw;
  }
  stop_naming();
}

void Graph::capture_end() { end(&vulkan::Graph::end_capture); }

void Graph::replay() { repack_written_weights(*graph_.replay()); }

void Graph::give_up_capture() { end(&vulkan::Graph::give_up_capture); }

}  // namespace q8ta::device
