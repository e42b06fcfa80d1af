// Crash loop: how long to wait with the next start of something that keeps dying by its own fault.
//
// The first deaths cost no wait. From then on each doubles it, between two bounds. A period of
// health after the last start ends the loop. Pure: the clock is passed in. One for a chain's
// workers, one for its zygotes.
#pragma once

#include <cstdint>

namespace flowkeep {

struct CrashLoopLimits {
  uint32_t free_deaths = 3;
  uint64_t first_wait_us = 10'000;
  uint64_t last_wait_us = 5'000'000;
  uint64_t healthy_us = 10'000'000;
};

class CrashLoop {
 public:
  explicit CrashLoop(const CrashLoopLimits& limits = {}) : limits_(limits) {}

  // A death at `now_us`. Returns the wait before the next start.
  uint64_t note_death(uint64_t now_us);
  // Was there a wait, and no health since?
  bool looping(uint64_t now_us) const { return wait_us_ > 0 && !healthy(now_us); }
  // Since the last healthy period.
  uint32_t deaths() const { return deaths_; }
  uint64_t wait_us() const { return wait_us_; }

 private:
  bool healthy(uint64_t now_us) const {
    return now_us - last_death_us_ >= wait_us_ + limits_.healthy_us;
  }
  CrashLoopLimits limits_;
  uint32_t deaths_ = 0;
  uint64_t wait_us_ = 0;
  uint64_t last_death_us_ = 0;
};

}  // namespace flowkeep
