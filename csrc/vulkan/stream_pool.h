#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <vector>

#include "vulkan/stream.h"

namespace q8ta::vulkan {

/// Streams of a device that no call is using. As many exist as threads have been in a call at once.
class StreamPool {
 public:
  explicit StreamPool(Device& device) : device_(device) {}

  /// Exclusive use of a stream; it goes back when the lease ends, whatever happened to it.
  class Lease {
   public:
    Lease(StreamPool& pool, std::unique_ptr<Stream> stream) : pool_(&pool), stream_(std::move(stream)) {}
    ~Lease() {
      if (stream_) pool_->give_back(std::move(stream_));
    }
    Lease(Lease&&) noexcept = default;
    Lease& operator=(Lease&&) = delete;
    Stream* operator->() const { return stream_.get(); }
    Stream& operator*() const { return *stream_; }

   private:
    StreamPool* pool_;
    std::unique_ptr<Stream> stream_;
  };

  Lease acquire();

  /// Destroys the streams that no call is using.
  void clear();

 private:
  void give_back(std::unique_ptr<Stream> stream);

  Device& device_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<Stream>> idle_;  // with room for all streams: to give one back must not fail
  size_t made_ = 0;
};

}  // namespace q8ta::vulkan
