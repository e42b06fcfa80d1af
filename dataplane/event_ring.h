// EventRing: the latest events of one worker slot (nfs/function_event.h), in shared memory.
//
// A burst's events are staged before its commit and published after it, or, if the worker died in
// between, by the recovery of the slot, which knows whether the burst is committed: `staged` is the
// position after them, so that publishing twice is publishing once. The oldest events are
// overwritten; who reads too late sees from the positions how many are gone.
//
// Who writes: the slot's worker, and after its death the supervisor. Readers copy and look again.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "nfs/function_event.h"

namespace flowkeep {

inline constexpr size_t kSlotEvents = 1024;

class alignas(64) EventRing {
 public:
  // Forgets all, for another chain.
  void reset() {
    begin_.store(published_.load());
    staged_.store(published_.load());
    lost_.store(0);
  }
  void stage(const EventStage& stage, uint32_t revision) {
    if (stage.lost() > 0) lost_.fetch_add(stage.lost(), std::memory_order_relaxed);
    if (stage.all().empty()) return;
    const uint64_t from = published_.load(std::memory_order_relaxed);
    uint64_t next = from;
    for (const FunctionEvent& event : stage.all()) {
      events_[next % kSlotEvents] = event;
      events_[next++ % kSlotEvents].revision = static_cast<uint16_t>(revision);
    }
    staged_.store(next, std::memory_order_release);
  }
  // What was staged is committed, or is not and never was.
  void publish() {
    published_.store(staged_.load(std::memory_order_relaxed), std::memory_order_release);
  }
  void discard() {
    staged_.store(published_.load(std::memory_order_relaxed), std::memory_order_release);
  }

  // Position after the latest event, and of the oldest that can still be read.
  uint64_t end() const { return published_.load(std::memory_order_acquire); }
  uint64_t begin() const { return oldest(end()); }
  // Events that never came into the ring because a burst had too many.
  uint64_t lost() const { return lost_.load(std::memory_order_relaxed); }
  // Nothing: overwritten meanwhile.
  std::optional<FunctionEvent> read(uint64_t position) const {
    const FunctionEvent event = events_[position % kSlotEvents];
    std::atomic_thread_fence(std::memory_order_acquire);
    if (position < begin()) return std::nullopt;
    return event;
  }

 private:
  // A burst that is being staged may overwrite as many as it can have.
  uint64_t oldest(uint64_t end) const {
    constexpr uint64_t kReadable = kSlotEvents - kBurstEvents;
    const uint64_t kept = end > kReadable ? end - kReadable : 0;
    return std::max(kept, begin_.load(std::memory_order_relaxed));
  }

  std::atomic<uint64_t> published_{0};
  std::atomic<uint64_t> staged_{0};
  std::atomic<uint64_t> begin_{0};
  std::atomic<uint64_t> lost_{0};
  FunctionEvent events_[kSlotEvents];
};

}  // namespace flowkeep
