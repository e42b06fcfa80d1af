#include "dataplane/supervisor/hang.h"

namespace flowkeep {

HangVerdict HangWatch::look(uint64_t bursts, bool packets_wait, uint64_t now_us, uint64_t limit_us,
                            const ProcessView& process) {
  if (bursts != bursts_ || !packets_wait) {
    bursts_ = bursts;
    cpu_at_progress_ns_ = -1;
    used_ns_ = 0;
    progress_us_ = now_us;
    return HangVerdict::kFine;
  }
  const int64_t cpu_ns = process.cpu_ns();
  if (cpu_ns < 0) return HangVerdict::kFine;
  if (cpu_at_progress_ns_ < 0) cpu_at_progress_ns_ = cpu_ns;
  used_ns_ = cpu_ns - cpu_at_progress_ns_;
  if (used_ns_ > static_cast<int64_t>(limit_us) * 1000) return HangVerdict::kLoops;
  if (now_us - progress_us_ < limit_us) return HangVerdict::kFine;
  const char state = process.state();
  return state == 'T' || state == 't' ? HangVerdict::kStopped : HangVerdict::kFine;
}

}  // namespace flowkeep
