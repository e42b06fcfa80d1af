// Idler: what a polling loop does when it has nothing to do. The machine may have no core for us
// alone, so others may run: by a yield, which costs nothing while nobody else wants the core. When
// a yield took long somebody does, and then short sleeps get the core back sooner than yields,
// which put us behind everybody else.
#pragma once

#include <rte_cycles.h>
#include <sched.h>

#include <cstdint>
#include <ctime>

namespace flowkeep::pktgen {

class Idler {
 public:
  explicit Idler(uint64_t ticks_per_s)
      : long_yield_ticks_(ticks_per_s / 5'000), contended_ticks_(ticks_per_s / 10) {}

  // `ticks`: how long there will be nothing to do, as far as is known.
  void idle(uint64_t ticks) {
    const uint64_t now = rte_rdtsc();
    if (now < contended_until_ || ticks > long_yield_ticks_) {
      const timespec pause{0, kSleepNs};
      nanosleep(&pause, nullptr);
      return;
    }
    sched_yield();
    const uint64_t after = rte_rdtsc();
    if (after - now > long_yield_ticks_) contended_until_ = after + contended_ticks_;
  }

 private:
  static constexpr long kSleepNs = 20'000;
  uint64_t long_yield_ticks_;  // 200 us
  uint64_t contended_ticks_;   // 100 ms
  uint64_t contended_until_ = 0;
};

}  // namespace flowkeep::pktgen
