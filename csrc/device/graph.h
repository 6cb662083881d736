#pragma once

#include <ATen/record_function.h>

#include "vulkan/graph.h"

namespace q8ta::device {

/// A graph of the current device's work. During its capture an operator that cannot be captured is refused by
/// its name.
class Graph {
 public:
  Graph() = default;
  ~Graph();
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  void capture_begin();
  void capture_end();
  /// Ends the capture, and there is no graph.
  void give_up_capture();
  void replay();
  void reset() { graph_.reset(); }

 private:
  void stop_naming();
  void end(void (vulkan::Graph::*how)());

  vulkan::Graph graph_;
  at::CallbackHandle naming_ = at::INVALID_CALLBACK_HANDLE;
};

}  // namespace q8ta::device
