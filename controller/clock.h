// Time for the controller. Leases count on the steady clock, records carry the wall clock; both
// come in through a Clock, so that tests decide what time it is.
#pragma once

#include <chrono>
#include <functional>

namespace flowkeep {

struct Clock {
  std::function<double()> unix_s = [] {
    return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch())
        .count();
  };
  std::function<double()> steady_s = [] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch())
        .count();
  };
};

}  // namespace flowkeep
