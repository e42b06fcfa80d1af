// The supervisor's part in drills: it notes what became of each dead worker, whoever killed it, and
// makes a worker hang on request. Faults are injected by the agent (dataplane/drill/drill_run.h).
#include <rte_cycles.h>

#include "dataplane/supervisor/supervisor.h"
#include "dataplane/worker.h"

namespace flowkeep {

void Supervisor::hang_worker(uint64_t request, const node::internal::HangWorker& wanted) {
  const uint32_t index = wanted.process();
  if (index >= kMaxProcesses ||
      header_.processes[index].pid.load() != static_cast<pid_t>(wanted.pid())) {
    return reply_error(request, unavailable("drill", "worker " + std::to_string(wanted.pid()) +
                                                         " is gone; try again"));
  }
  header_.processes[index].stop_at.store(static_cast<BurstStep>(wanted.step()));
  node::internal::Reply answer;
  answer.set_id(request);
  *answer.mutable_hung() = wanted;
  reply(answer);
}

void Supervisor::note_death(pid_t victim, int slot, uint32_t chain, const SlotRecovery& recovery,
                            uint64_t detected_tsc) {
  Takeover takeover;
  takeover.victim_pid = victim;
  takeover.slot = slot;
  takeover.chain = chain;
  takeover.detected_tsc = detected_tsc;
  takeover.first_burst_tsc = recovery.first_burst_tsc;
  takeover.waiting = recovery.waiting;
  takeover.burst = recovery.burst_undone      ? DeadBurst::kRedone
                   : recovery.burst_completed ? DeadBurst::kCompleted
                                              : DeadBurst::kNone;
  if (slot >= 0) {
    const int replacement = header_.slots[slot].process.load();
    if (replacement >= 0) {
      takeover.replacement_pid = header_.processes[replacement].pid.load();
      takeover.taken_over_tsc = rte_rdtsc();
    }
  }
  header_.takeovers.record(takeover);
}

}  // namespace flowkeep
