// GapMeter: the longest pause in a series of events, and how many pauses were longer than a limit.
#pragma once

#include <algorithm>
#include <cstdint>

namespace flowkeep::pktgen {

class GapMeter {
 public:
  explicit GapMeter(uint64_t limit_ticks) : limit_ticks_(limit_ticks) {}

  // Times never decrease.
  void on_event(uint64_t now_ticks) {
    if (first_ticks_ != 0) {
      const uint64_t gap = now_ticks - last_ticks_;
      longest_ticks_ = std::max(longest_ticks_, gap);
      if (gap > limit_ticks_) ++over_limit_;
    } else {
      first_ticks_ = now_ticks;
    }
    last_ticks_ = now_ticks;
  }

  uint64_t longest_ticks() const { return longest_ticks_; }
  uint64_t over_limit() const { return over_limit_; }
  uint64_t span_ticks() const { return last_ticks_ - first_ticks_; }

 private:
  uint64_t limit_ticks_;
  uint64_t first_ticks_ = 0;  // 0: no event yet
  uint64_t last_ticks_ = 0;
  uint64_t longest_ticks_ = 0;
  uint64_t over_limit_ = 0;
};

}  // namespace flowkeep::pktgen
