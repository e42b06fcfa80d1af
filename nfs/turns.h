// Turns: several threads of which one runs at a time, so that what workers do side by side is
// interleaved the same way each time for the same seed.
//
// Thread rule: each actor is a thread of its own; calls name the caller.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <random>
#include <vector>

namespace flowkeep {

class Turns {
 public:
  Turns(size_t actors, uint64_t seed) : present_(actors, true), random_(seed) {}

  // Waits for the actor's first turn.
  void enter(size_t actor) {
    std::unique_lock lock(mutex_);
    wait(lock, actor);
  }
  // Lets somebody go on, perhaps the same actor.
  void give(size_t actor) {
    std::unique_lock lock(mutex_);
    pass();
    wait(lock, actor);
  }
  // The actor has no more turns.
  void leave(size_t actor) {
    std::unique_lock lock(mutex_);
    present_[actor] = false;
    pass();
  }

 private:
  void wait(std::unique_lock<std::mutex>& lock, size_t actor) {
    changed_.wait(lock, [this, actor] { return turn_ == actor; });
  }
  void pass() {
    size_t left = 0;
    for (const bool present : present_) left += present ? 1 : 0;
    if (left == 0) return;
    size_t skip = random_() % left;
    for (size_t actor = 0; actor < present_.size(); ++actor) {
      if (!present_[actor] || skip-- != 0) continue;
      if (turn_ == actor) return;
      turn_ = actor;
      changed_.notify_all();
      return;
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<bool> present_;
  std::mt19937_64 random_;
  size_t turn_ = 0;
};

}  // namespace flowkeep
