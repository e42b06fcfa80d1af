// Pacer: how many packets are due, from the time alone. Packets that could not go out on time are
// caught up at no more than four times the rate, so that a pause (of this process on a busy
// machine) is not followed by a burst that no real link would carry. What is more than
// kLongestBacklogS behind is given up.
//
// Time is a counter passed in. One thread.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace flowkeep::pktgen {

class Pacer {
 public:
  static constexpr double kLongestBacklogS = 0.1;
  static constexpr double kCatchUpFactor = 4.0;

  // `rate_pps` > 0; infinity: always due.
  Pacer(double rate_pps, double ticks_per_s, uint64_t start_ticks)
      : ticks_per_packet_(ticks_per_s / rate_pps),
        longest_backlog_(std::max(1.0, kLongestBacklogS * rate_pps)),
        start_ticks_(start_ticks) {}

  // Packets to send now, at most `most`; they count as granted.
  uint32_t take(uint64_t now_ticks, uint32_t most) {
    if (ticks_per_packet_ == 0) return most;
    const auto elapsed = static_cast<double>(now_ticks - start_ticks_);
    double backlog = std::floor(elapsed / ticks_per_packet_) + 1 - granted_;
    if (backlog > longest_backlog_) {
      const double excess = std::floor(backlog - longest_backlog_);
      given_up_ += excess;
      granted_ += excess;
      backlog -= excess;
    }
    if (backlog < 1 || elapsed < earliest_ticks_) return 0;
    const double count = std::min<double>(backlog, most);
    earliest_ticks_ = elapsed + count * ticks_per_packet_ / kCatchUpFactor;
    granted_ += count;
    return static_cast<uint32_t>(count);
  }

  // Ticks until the next packet is due; 0 if one is.
  uint64_t ticks_to_next(uint64_t now_ticks) const {
    if (ticks_per_packet_ == 0) return 0;
    const auto elapsed = static_cast<double>(now_ticks - start_ticks_);
    const double wait = std::max(granted_ * ticks_per_packet_, earliest_ticks_) - elapsed;
    return wait <= 0 ? 0 : static_cast<uint64_t>(wait);
  }

  // More than one packet is late: sending goes on as fast as catching up may.
  bool behind(uint64_t now_ticks) const {
    const auto elapsed = static_cast<double>(now_ticks - start_ticks_);
    return ticks_per_packet_ != 0 && elapsed >= (granted_ + 1) * ticks_per_packet_;
  }

  uint64_t given_up() const { return static_cast<uint64_t>(given_up_); }

 private:
  double ticks_per_packet_;
  double longest_backlog_;
  uint64_t start_ticks_;
  double granted_ = 0;  // whole numbers below 2^53
  double given_up_ = 0;
  double earliest_ticks_ = 0;  // since start: nothing is granted before
};

}  // namespace flowkeep::pktgen
