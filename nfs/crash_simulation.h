// The crash simulation: runs of a firewall and nat44 chain, one after the other, each recorded and
// then cut at every step (state/crash_simulator.h), until enough distinct images were checked or
// one of them is wrong.
#pragma once

#include <cstdint>
#include <string>

#include "nfs/crash_run.h"
#include "state/crash_simulator.h"

namespace flowkeep {

struct CrashSimulationOptions {
  uint64_t seed = 1;          // of the first run; each further one has the next
  uint64_t distinct = 2'000;  // images to check
  uint64_t most_runs = UINT64_MAX;
  uint32_t bursts = 40;                                                    // of a run
  uint64_t operations_in_a_life = CrashRunOptions{}.operations_in_a_life;  // of a run's workers
  CrashSimulatorOptions images;                                            // its seed is the run's
};

struct CrashSimulationReport {
  CrashCounts counts;  // over all runs; an image counts once in each run
  uint64_t runs = 0;
  uint64_t bursts = 0;
  uint64_t packets = 0;
  uint64_t worker_deaths = 0;
  uint64_t handovers = 0;
  uint64_t seed = 0;         // of the run with the violation
  CrashViolation violation;  // the first; `what` is empty if there was none
  std::string fault;         // the simulation itself failed

  // "" if all is well; otherwise what is wrong and how to see it again.
  std::string text() const;
};

CrashSimulationReport simulate_crashes(const CrashSimulationOptions& options);
// One image of one run.
CrashSimulationReport simulate_crash(const CrashSimulationOptions& options, uint64_t step,
                                     uint64_t image);

}  // namespace flowkeep
