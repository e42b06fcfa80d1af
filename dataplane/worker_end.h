// How a worker's end becomes known at once, and with its cause.
//
// The word `life` of the worker's WorkerProcess is a robust futex (Linux,
// Documentation/locking/robust-futexes.rst): the kernel changes it from the worker's thread id to
// FUTEX_OWNER_DIED, and wakes who waits on it, when the worker's thread has begun to exit. That is
// proof that the worker runs no more user code, and it comes before the kernel takes its address
// space apart; the pidfd becomes readable only after that, which is milliseconds later.
//
// A fatal signal is noted in `fatal_signal` before the worker exits of it. A worker that was killed
// with SIGKILL has noted nothing.
//
// Thread rule: a worker process makes one, before it enters its sandbox.
#pragma once

#include <linux/futex.h>

#include <array>
#include <csignal>
#include <cstddef>

#include "dataplane/arena.h"

namespace flowkeep {

// What a process may die of by its own fault. SIGKILL comes from outside.
inline constexpr std::array kFatalSignals = {SIGSEGV, SIGBUS, SIGILL, SIGFPE,
                                             SIGABRT, SIGSYS, SIGTRAP};

class WorkerEnd {
 public:
  WorkerEnd() = default;
  WorkerEnd(const WorkerEnd&) = delete;
  WorkerEnd& operator=(const WorkerEnd&) = delete;

  // From here on the end of this process shows in `process`. This object must live as long as the
  // process.
  void announce(ArenaHeader& header, WorkerProcess& process);

 private:
  void note_fatal_signals(WorkerProcess& process);

  robust_list_head list_{};
  robust_list entry_{};
  std::array<std::byte, 16384> signal_stack_{};  // a stack overflow is noted too
};

// Has the worker of this entry begun to exit? False for one that never announced itself.
inline bool has_ended(const WorkerProcess& process) {
  return (process.life.load(std::memory_order_acquire) & FUTEX_OWNER_DIED) != 0;
}

}  // namespace flowkeep
