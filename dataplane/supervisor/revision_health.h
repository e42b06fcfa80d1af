// Revision health: when is a revision given up, and which one is good enough to go back to?
//
// Only deaths count that are the workers' own fault. A young revision is given up after a few of
// them; one that has run for a while only when many fall into one window, because then it may be
// the traffic that has changed. Pure: the clock is passed in. One for each running revision.
#pragma once

#include <cstdint>
#include <deque>

namespace flowkeep {

struct RevisionLimits {
  uint64_t young_us = 120'000'000;
  uint32_t young_deaths = 5;
  uint64_t window_us = 60'000'000;
  uint32_t window_deaths = 20;
  uint64_t good_us = 60'000'000;
};

class RevisionHealth {
 public:
  explicit RevisionHealth(uint64_t started_us = 0, const RevisionLimits& limits = {})
      : limits_(limits), started_us_(started_us) {}

  void note_death(uint64_t now_us);
  bool hopeless(uint64_t now_us) const;
  // It has never died, or not for a while.
  bool good(uint64_t now_us) const;
  uint32_t deaths() const { return deaths_; }

 private:
  RevisionLimits limits_;
  uint64_t started_us_;
  uint32_t deaths_ = 0;
  std::deque<uint64_t> recent_us_;  // the last window_deaths of them
};

}  // namespace flowkeep
