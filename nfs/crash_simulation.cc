#include "nfs/crash_simulation.h"

#include <stdlib.h>
#include <unistd.h>

#include <algorithm>

#include "nfs/crash_oracle.h"

namespace flowkeep {

namespace {

// On tmpfs, removed in the end.
class Directory {
 public:
  Directory() {
    std::string pattern = "/dev/shm/flowkeep-crash-XXXXXX";
    if (mkdtemp(pattern.data()) != nullptr) path_ = pattern;
  }
  ~Directory() {
    if (!path_.empty()) rmdir(path_.c_str());
  }
  Directory(const Directory&) = delete;
  Directory& operator=(const Directory&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// Every other run begins with a bucket whose index is about to split.
CrashRun record(uint64_t seed, const CrashSimulationOptions& simulation,
                const std::string& directory) {
  CrashRunOptions options;
  options.seed = seed;
  options.bursts = simulation.bursts;
  options.operations_in_a_life = simulation.operations_in_a_life;
  options.split = seed % 2 == 0;
  options.prefilled = static_cast<uint32_t>(options.split ? seed % 8 : seed % 50);
  return record_crash_run(options, directory);
}

void add(CrashCounts& sum, const CrashCounts& more) {
  sum.steps += more.steps;
  sum.drawn += more.drawn;
  sum.distinct += more.distinct;
  sum.recovery_cuts += more.recovery_cuts;
  sum.continued += more.continued;
  sum.most_words_lost = std::max(sum.most_words_lost, more.most_words_lost);
}

void add(CrashSimulationReport& report, const CrashRun& run) {
  ++report.runs;
  report.bursts += run.bursts.size();
  report.packets += run.packets;
  report.worker_deaths += run.worker_deaths;
  report.handovers += run.handovers;
}

}  // namespace

std::string CrashSimulationReport::text() const {
  if (!fault.empty()) return "seed " + std::to_string(seed) + ": " + fault;
  if (violation.what.empty()) return "";
  const std::string step = std::to_string(violation.step);
  const std::string image = std::to_string(violation.image);
  return "seed " + std::to_string(seed) + ", step " + step + ", image " + image + ": " +
         violation.what + "\nagain: crash_simulation --seed " + std::to_string(seed) + " --step " +
         step + " --image " + image;
}

CrashSimulationReport simulate_crashes(const CrashSimulationOptions& options) {
  CrashSimulationReport report;
  const Directory directory;
  for (uint64_t seed = options.seed;
       report.runs < options.most_runs && report.counts.distinct < options.distinct; ++seed) {
    report.seed = seed;
    const CrashRun run = record(seed, options, directory.path());
    report.fault = run.fault;
    if (!run.fault.empty()) return report;
    add(report, run);
    CrashSimulatorOptions images = options.images;
    images.seed = seed;
    images.most_distinct = options.distinct - report.counts.distinct;
    RunOracle oracle(run);
    CrashSimulator simulator(run.start, directory.path(), images);
    report.violation = simulator.run(run.operations, oracle);
    add(report.counts, simulator.counts());
    if (!report.violation.what.empty()) return report;
  }
  return report;
}

CrashSimulationReport simulate_crash(const CrashSimulationOptions& options, uint64_t step,
                                     uint64_t image) {
  CrashSimulationReport report;
  const Directory directory;
  report.seed = options.seed;
  const CrashRun run = record(options.seed, options, directory.path());
  report.fault = run.fault;
  if (!run.fault.empty()) return report;
  add(report, run);
  CrashSimulatorOptions images = options.images;
  images.seed = options.seed;
  RunOracle oracle(run);
  CrashSimulator simulator(run.start, directory.path(), images);
  report.violation = simulator.run_one(run.operations, oracle, step, image);
  add(report.counts, simulator.counts());
  return report;
}

}  // namespace flowkeep
