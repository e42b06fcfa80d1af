// Hang watch: tells a worker that loops or is stopped from one that is slow, sleeps, or is merely
// not scheduled.
//
// A worker is looked at now and then. While no packet waits for it, or it ends bursts, it is fine.
// Otherwise its processor time decides, not the time on the wall: one that used up its limit
// without ending a burst loops. One that is stopped uses none; it is told by its process state,
// after the limit on the wall. One that a busy machine does not schedule, or that waits for a
// processor, is neither.
//
// Pure but for the view of the process, which is passed in and asked only when packets wait.
#pragma once

#include <cstdint>

namespace flowkeep {

class ProcessView {
 public:
  virtual ~ProcessView() = default;
  virtual int64_t cpu_ns() const = 0;  // -1: not known (it is gone)
  virtual char state() const = 0;      // letter of /proc/PID/stat: 'T' stopped, 't' by a debugger
};

enum class HangVerdict : uint8_t { kFine, kLoops, kStopped };

class HangWatch {
 public:
  HangVerdict look(uint64_t bursts, bool packets_wait, uint64_t now_us, uint64_t limit_us,
                   const ProcessView& process);
  // Of the processor, without ending a burst; as of the last look.
  int64_t used_ns() const { return used_ns_; }

 private:
  uint64_t bursts_ = UINT64_MAX;
  int64_t cpu_at_progress_ns_ = -1;
  int64_t used_ns_ = 0;
  uint64_t progress_us_ = 0;
};

}  // namespace flowkeep
