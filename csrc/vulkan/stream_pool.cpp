#include "vulkan/stream_pool.h"

namespace q8ta::vulkan {

StreamPool::Lease StreamPool::acquire() {
  {
    const std::lock_guard lock(mutex_);
    if (!idle_.empty()) {
      std::unique_ptr<Stream> stream = std::move(idle_.back());
      idle_.pop_back();
      return {*this, std::move(stream)};
    }
    idle_.reserve(++made_);
  }
  return {*this, std::make_unique<Stream>(device_)};
}

void StreamPool::clear() {
  const std::lock_guard lock(mutex_);
  made_ -= idle_.size();
  idle_.clear();
}

void StreamPool::give_back(std::unique_ptr<Stream> stream) {
  if (!stream->recover()) return;
  const std::lock_guard lock(mutex_);
  idle_.push_back(std::move(stream));
}

}  // namespace q8ta::vulkan
