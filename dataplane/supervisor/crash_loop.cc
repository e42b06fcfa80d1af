#include "dataplane/supervisor/crash_loop.h"

#include <algorithm>

namespace flowkeep {

uint64_t CrashLoop::note_death(uint64_t now_us) {
  if (deaths_ > 0 && healthy(now_us)) {
    deaths_ = 0;
    wait_us_ = 0;
  }
  last_death_us_ = now_us;
  if (++deaths_ > limits_.free_deaths)
    wait_us_ = wait_us_ == 0 ? limits_.first_wait_us : std::min(2 * wait_us_, limits_.last_wait_us);
  return wait_us_;
}

}  // namespace flowkeep
