// DrillRun: injects a drill's faults into workers, follows what becomes of each, and samples the
// throughput meanwhile.
//
// It works as an outsider would: workers are killed by process id from the agent, at moments that
// no timer of the supervisor knows; the supervisor learns of each death as of any other. What it
// did then is read from its TakeoverLog. Everything is measured with the time stamp counter.
//
// Threads: run() on one thread; stop() and progress() from any.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "dataplane/arena.h"
#include "dataplane/drill/drill_plan.h"
#include "dataplane/drill/forwarded_samples.h"

namespace flowkeep {

struct Injection {
  uint64_t injected_tsc = 0;
  Victim victim = Victim::kWorker;
  int32_t victim_pid = 0;
  int32_t replacement_pid = 0;
  int32_t slot = -1;  // -1: a standby
  uint32_t chain = 0;
  double detect_us = -1;
  double takeover_us = -1;
  double first_packet_us = -1;
  uint32_t waiting = 0;
  DeadBurst burst = DeadBurst::kNone;
};

struct DrillOrder {
  std::vector<uint32_t> chains;  // indexes in the arena
  uint64_t count = 1;
  uint64_t buffers = 0;        // packet buffers of the node
  bool one_at_a_time = false;  // the next fault only when the last one's packet came
  // Where a worker is made to loop for ever; kNone: it is killed at any moment.
  BurstStep at_step = BurstStep::kNone;
  bool kill_there = false;  // and then it is killed, once it says that it is there
};

class DrillRun {
 public:
  // Makes a worker hang at a step of its next burst, by its index and process id.
  using Hang = std::function<bool(uint32_t process, pid_t pid, BurstStep step)>;

  DrillRun(const Arena& arena, DrillOrder order, DrillPlan plan, Hang hang);

  void run();
  void stop() { stopping_.store(true); }
  bool stopped() const { return stopping_.load(); }

  uint64_t injected() const { return injected_.load(); }
  double elapsed_s() const;
  double recent_pps() { return recent_pps_.load(); }

  // After run().
  const std::vector<Injection>& injections() const { return injections_; }
  const ForwardedSamples& samples() const { return samples_; }
  uint64_t begin_tsc() const { return begin_tsc_; }
  double duration_s() const { return duration_s_; }  // to the last fault
  uint64_t packets_lost(uint32_t chain) const { return lost_.at(chain); }
  uint64_t buffers_missing() const { return buffers_missing_; }

 private:
  struct Target {
    int process = -1;
    pid_t pid = 0;
  };

  void plan_next(uint64_t now_tsc);
  void try_to_inject();
  bool inject(const Target& target, Victim victim);
  bool send_fault(const Target& target, int pidfd, Injection& injection) const;
  bool wait_at_step(const Target& target) const;
  Target worker_of(uint8_t slot, bool serving) const;
  Target standby_of(uint32_t chain) const;
  std::vector<uint8_t> slots() const;
  bool under_way(pid_t pid) const;
  void follow();
  void note(const Takeover& takeover);
  void look_for_first_packets();
  bool settled(Injection& injection, uint64_t now_tsc) const;
  void sample(uint64_t now_tsc);
  void settle();
  uint64_t unaccounted(uint32_t chain) const;
  double us_since(uint64_t from_tsc, uint64_t tsc) const;

  const Arena& arena_;
  const ArenaHeader& header_;
  DrillOrder order_;
  DrillPlan plan_;
  Hang hang_;
  std::atomic<bool> stopping_{false};
  std::atomic<uint64_t> injected_{0};
  std::atomic<double> recent_pps_{0};
  std::atomic<uint64_t> begin_tsc_{0};
  double duration_s_ = 0;

  std::vector<Injection> injections_;
  std::vector<size_t> open_;  // of them, those whose end is not known
  bool gave_up_ = false;      // no victim for long
  PlannedFault planned_;
  uint64_t due_tsc_ = 0;
  uint64_t last_injected_tsc_ = 0;
  uint64_t read_ = 0;  // takeovers
  ForwardedSamples samples_;
  uint64_t next_sample_tsc_ = 0;
  uint32_t sampled_ = 0;
  std::vector<uint64_t> lost_;  // by chain
  uint64_t buffers_missing_ = UINT64_MAX;
};

}  // namespace flowkeep
