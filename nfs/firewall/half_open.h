// HalfOpen: how many TCP connections wait for the end of their handshake, in all and to each
// destination, so that a flood of SYNs finds an end.
//
// A half-open connection lives for its time-out from its first SYN, whatever is repeated. So it
// need not be seen to end: counts are kept by age and forgotten with it, which is right again by
// itself after the death of a worker. Ages are counted in eighths of the time-out, rounded up: what
// expires counts up to an eighth longer. Destinations share kPlaces places by a keyed hash; those
// that share one share its limit.
//
// At the limit new connections are refused, rather than the oldest closed: whoever holds out
// against a flood by closing the oldest closes those of the distant and the slow first, and each
// refusal here costs no state at all.
//
// Thread rule: one worker's soft state.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "nfs/drop_reason.h"

namespace flowkeep {

struct HalfOpenLimits {
  uint32_t all = 0;              // of a worker; 0: no limit
  uint32_t per_destination = 0;  // 0: no limit
  uint32_t timeout_s = 0;        // after which they are gone

  bool any() const { return all != 0 || per_destination != 0; }
};

// Events of the last few generations, by the generation of each.
class RecentCount {
 public:
  static constexpr uint32_t kGenerations = 9;  // eight whole ones, and the one that goes on

  void add(uint32_t generation) {
    forget_before(generation);
    ++counts_[generation % kGenerations];
  }
  // One that was added in `generation`.
  void remove(uint32_t generation, uint32_t now) {
    forget_before(now);
    uint32_t& count = counts_[generation % kGenerations];
    if (now - generation < kGenerations && count > 0) --count;
  }
  uint32_t total(uint32_t now) {
    forget_before(now);
    uint32_t sum = 0;
    for (const uint32_t count : counts_) sum += count;
    return sum;
  }

 private:
  // A clock that goes back forgets nothing.
  void forget_before(uint32_t now) {
    const auto passed = static_cast<int32_t>(now - latest_);
    if (passed <= 0) return;
    for (uint32_t i = 0; i < kGenerations && i < static_cast<uint32_t>(passed); ++i)
      counts_[(now - i) % kGenerations] = 0;
    latest_ = now;
  }

  std::array<uint32_t, kGenerations> counts_{};
  uint32_t latest_ = 0;
};

class HalfOpen {
 public:
  static constexpr size_t kPlaces = 4096;

  explicit HalfOpen(const HalfOpenLimits& limits)
      : limits_(limits),
        generation_s_(std::max(1U, (limits.timeout_s + 7) / 8)),
        by_destination_(limits.any() ? kPlaces : 0) {}

  bool is_limited() const { return limits_.any(); }
  // kNone: one more is open. `destination`: a keyed hash of its address.
  DropReason open(uint64_t destination, uint32_t now_s) {
    if (!limits_.any()) return DropReason::kNone;
    const uint32_t now = generation(now_s);
    RecentCount& place = by_destination_[destination % kPlaces];
    if (limits_.all != 0 && all_.total(now) >= limits_.all) return DropReason::kHalfOpenLimit;
    if (limits_.per_destination != 0 && place.total(now) >= limits_.per_destination)
      return DropReason::kHalfOpenDestinationLimit;
    all_.add(now);
    place.add(now);
    return DropReason::kNone;
  }
  // It stands, or was refused: one that opened at `opened_s`.
  void leave(uint64_t destination, uint32_t opened_s, uint32_t now_s) {
    if (!limits_.any()) return;
    all_.remove(generation(opened_s), generation(now_s));
    by_destination_[destination % kPlaces].remove(generation(opened_s), generation(now_s));
  }
  uint32_t count(uint32_t now_s) { return all_.total(generation(now_s)); }

 private:
  uint32_t generation(uint32_t at_s) const { return at_s / generation_s_; }

  HalfOpenLimits limits_;
  uint32_t generation_s_;
  RecentCount all_;
  std::vector<RecentCount> by_destination_;
};

}  // namespace flowkeep
