// TakeoverLog: what the supervisor notes of each worker that died, the latest 1,024 of them. Drills
// read it: they inject their faults from another process, as an outsider would, and learn from
// here what became of them.
//
// The supervisor writes; the agent reads, from its read-only mapping. An entry is readable when its
// sequence number is in place.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace flowkeep {

inline constexpr size_t kTakeovers = 1024;

enum class DeadBurst : uint8_t { kNone, kRedone, kCompleted };

// One dead worker, without the sequence number that guards it.
struct Takeover {
  int32_t victim_pid = 0;
  int32_t replacement_pid = 0;  // 0: none was ready
  int32_t slot = -1;            // that it owned; -1: a standby
  uint32_t chain = 0;
  uint64_t detected_tsc = 0;
  uint64_t taken_over_tsc = 0;   // its replacement owned the slot
  uint64_t first_burst_tsc = 0;  // the victim's own first burst in the slot; 0: it ended none
  uint32_t waiting = 0;          // packets in the inbox at the take-over
  DeadBurst burst = DeadBurst::kNone;
};

struct TakeoverLog {
  struct Entry {
    std::atomic<uint64_t> sequence{0};  // from 1; 0 while being written
    Takeover takeover;
  };
  std::atomic<uint64_t> last{0};
  Entry entries[kTakeovers];

  void record(const Takeover& takeover) {
    const uint64_t sequence = last.load(std::memory_order_relaxed) + 1;
    Entry& entry = entries[sequence % kTakeovers];
    entry.sequence.store(0, std::memory_order_relaxed);
    std::atomic_thread_fence(std::memory_order_release);
    entry.takeover = takeover;
    entry.sequence.store(sequence, std::memory_order_release);
    last.store(sequence, std::memory_order_release);
  }

  // False: overwritten, or not there yet.
  bool read(uint64_t sequence, Takeover& takeover) const {
    const Entry& entry = entries[sequence % kTakeovers];
    if (entry.sequence.load(std::memory_order_acquire) != sequence) return false;
    takeover = entry.takeover;
    std::atomic_thread_fence(std::memory_order_acquire);
    return entry.sequence.load(std::memory_order_relaxed) == sequence;
  }
};

}  // namespace flowkeep
