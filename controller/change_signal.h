// ChangeSignal: wakes whoever watches chains or events, or waits for a node, when something
// changed. Threads: every method may be called from any thread.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>

namespace flowkeep {

class ChangeSignal {
 public:
  void raise() {
    {
      const std::scoped_lock lock(mutex_);
      ++count_;
    }
    raised_.notify_all();
  }
  uint64_t count() const {
    const std::scoped_lock lock(mutex_);
    return count_;
  }
  // Returns at once if it was raised since `seen`; else at the next raise or the timeout. Returns
  // the count.
  uint64_t wait(uint64_t seen, std::chrono::milliseconds timeout) const {
    std::unique_lock lock(mutex_);
    raised_.wait_for(lock, timeout, [&] { return count_ != seen; });
    return count_;
  }

 private:
  mutable std::mutex mutex_;
  mutable std::condition_variable raised_;
  uint64_t count_ = 0;
};

}  // namespace flowkeep
