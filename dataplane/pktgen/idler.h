// Idler: what a polling loop does when it has nothing to do. The machine may have no core for us
// alone, so others may run: by a yield, which costs little while nobody else wants the core, or by
// a short sleep when there will be nothing to do for long.
//
// Thread rule: made and used by one thread.
#pragma once

#include <sched.h>
#include <sys/prctl.h>

#include <cstdint>
#include <ctime>

namespace flowkeep::pktgen {

class Idler {
 public:
  explicit Idler(uint64_t ticks_per_s) : long_ticks_(ticks_per_s / 5'000) {
    prctl(PR_SET_TIMERSLACK, 1000UL);  // ns: by default a sleep may last 50 us longer
  }

  // `ticks`: how long there will be nothing to do, as far as is known.
  void idle(uint64_t ticks) const {
    if (ticks < long_ticks_) {
      sched_yield();
      return;
    }
    const timespec pause{0, kSleepNs};
    nanosleep(&pause, nullptr);
  }

 private:
  static constexpr long kSleepNs = 20'000;
  uint64_t long_ticks_;  // 200 us
};

}  // namespace flowkeep::pktgen
