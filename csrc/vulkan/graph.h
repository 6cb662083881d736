#pragma once

#include <memory>
#include <mutex>

#include "vulkan/capture.h"
#include "vulkan/device.h"

namespace q8ta::vulkan {

class RecordedGraph;

/// Work of one thread that is captured once and replayed as often as wanted. Thread-safe; errors are Error.
class Graph {
 public:
  Graph() = default;
  ~Graph();
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  void begin_capture(Device& device);
  /// In the thread that began it.
  void end_capture();
  /// Ends a capture without making a graph of it.
  void give_up_capture();

  /// Returns the buffers that it writes.
  std::shared_ptr<const BufferIds> replay();

  /// Back to the state before the capture. Memory that only the graph used is free.
  void reset();

  /// The capture in progress; null if there is none.
  Capture* capture() const { return capture_.get(); }

 private:
  mutable std::mutex mutex_;
  Device* device_ = nullptr;
  std::shared_ptr<Capture> capture_;
  std::weak_ptr<RecordedGraph> recorded_;
  std::shared_ptr<const BufferIds> written_;
  bool captured_ = false;
};

}  // namespace q8ta::vulkan
