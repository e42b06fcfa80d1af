#include "dataplane/supervisor/ending.h"

#include <algorithm>
#include <cstring>

#include "dataplane/worker_end.h"

namespace flowkeep {

std::string signal_text(int signal) {
  const char* name = sigabbrev_np(signal);
  return std::string("SIG") + (name == nullptr ? "?" : name);
}

Ending ending_of(const siginfo_t& info, bool left) {
  if (info.si_code == CLD_EXITED)
    return {"exit status " + std::to_string(info.si_status), !left || info.si_status != 0};
  const bool own_fault =
      std::find(kFatalSignals.begin(), kFatalSignals.end(), info.si_status) != kFatalSignals.end();
  return {signal_text(info.si_status), own_fault};
}

}  // namespace flowkeep
