#include "dataplane/drill/drills.h"

#include <chrono>
#include <future>
#include <random>

#include "dataplane/agent_status.h"
#include "dataplane/drill/drill_report.h"

namespace flowkeep {
namespace {

constexpr uint32_t kIntervalMs = 100;
constexpr uint32_t kStormIntervalUs = 12'000;  // 10,000 kills in two minutes
constexpr auto kProgressPeriod = std::chrono::milliseconds(500);

Result<std::vector<Victim>> victims_of(const node::v1::RunDrillRequest& request) {
  std::vector<Victim> victims;
  for (const std::string& name : request.victims()) {
    const std::optional<Victim> victim = parse_victim(name);
    if (!victim)
      return invalid("victims",
                     "\"" + name + "\" is not accepted; accepted: " + std::string(kVictimNames));
    victims.push_back(*victim);
  }
  if (victims.empty()) victims = {Victim::kWorker, Victim::kStandby, Victim::kSuccessor};
  return victims;
}

}  // namespace

Result<std::vector<uint32_t>> Drills::chains_of(const node::v1::RunDrillRequest& request) const {
  std::vector<uint32_t> chains;
  const bool all = request.chain().empty() && request.kind() == "storm";
  for (uint32_t i = 0; i < kMaxChains; ++i) {
    const ChainBlock& block = arena_.header().chains[i];
    if (block.active.load() != 0 && (all || request.chain() == block.name)) chains.push_back(i);
  }
  if (!chains.empty()) return chains;
  if (all) return unavailable("chain", "no chain runs on node \"" + config_.name + "\"");
  return Error{Error::Kind::kNotFound, "chain",
               "\"" + request.chain() + "\" does not run on node \"" + config_.name + "\""};
}

Result<void> Drills::run(const node::v1::RunDrillRequest& asked, const OnProgress& on_progress) {
  node::v1::RunDrillRequest request = asked;
  const bool storm = request.kind() == "storm";
  const bool hang = request.kind() == "hang-worker";
  if (!storm && !hang && request.kind() != "kill-worker") {
    return invalid(
        "kind",
        "\"" + request.kind() +
            "\" is no drill; accepted: kill-worker, hang-worker, storm, kill-node, power-cut");
  }
  const std::optional<BurstStep> step = burst_step_of(hang ? "peeked" : request.at_step());
  if (!request.at_step().empty() && !step) {
    return invalid("at_step", "\"" + request.at_step() +
                                  "\" is not accepted; one of these is: " + burst_step_names());
  }
  const Result<std::vector<uint32_t>> chains = chains_of(request);
  if (!chains) return chains.error();
  const Result<std::vector<Victim>> victims = victims_of(request);
  if (!victims) return victims.error();
  if (request.count() == 0) request.set_count(1);
  if (request.interval_us() == 0) request.set_interval_us(kStormIntervalUs);
  if (request.interval_ms() == 0) request.set_interval_ms(kIntervalMs);
  while (storm && request.seed() == 0) request.set_seed(std::random_device()());
  DrillPlan plan = storm ? DrillPlan::storm(request.seed(), request.interval_us(), *victims)
                         : DrillPlan::steady(request.interval_ms() * 1000.0);
  const auto run = std::make_shared<DrillRun>(arena_,
                                              DrillOrder{.chains = *chains,
                                                         .count = request.count(),
                                                         .buffers = config_.buffers(),
                                                         .one_at_a_time = !storm,
                                                         .at_step = step.value_or(BurstStep::kNone),
                                                         .kill_there = !hang},
                                              std::move(plan), hang_);
  {
    const std::lock_guard lock(mutex_);
    if (running_) return unavailable("drill", "another drill is running; try again when it ended");
    running_ = run;
  }
  node::v1::DrillProgress last;
  *last.mutable_report() = run_to_end(request, *run, *chains, on_progress);
  last.set_injected(run->injected());
  last.set_wanted(request.count());
  last.set_elapsed_s(run->duration_s());
  {
    const std::lock_guard lock(mutex_);
    running_.reset();
  }
  on_progress(last);
  return {};
}

node::v1::DrillReport Drills::run_to_end(const node::v1::RunDrillRequest& request, DrillRun& run,
                                         const std::vector<uint32_t>& chains,
                                         const OnProgress& on_progress) {
  std::vector<ChainFlows> flows;
  for (const uint32_t chain : chains) {
    flows.push_back({chain, snapshot_flows(arena_, pool_, static_cast<int>(chain)), {}});
  }
  const auto done = std::async(std::launch::async, [&run] { run.run(); });
  while (done.wait_for(kProgressPeriod) != std::future_status::ready) {
    node::v1::DrillProgress progress;
    progress.set_injected(run.injected());
    progress.set_wanted(request.count());
    progress.set_elapsed_s(run.elapsed_s());
    progress.set_forwarded_pps(run.recent_pps());
    if (!on_progress(progress)) run.stop();
  }
  for (ChainFlows& one : flows)
    one.after = snapshot_flows(arena_, pool_, static_cast<int>(one.chain));
  node::v1::DrillReport report = make_report(arena_, request, run, flows);
  report.set_buffers_total(config_.buffers());
  report.set_medium(std::string(medium_name(pool_.medium())));
  report.set_medium_survives(std::string(medium_survives(pool_.medium())));
  report.set_emulated(pool_.emulated());
  return report;
}

Result<void> Drills::stop() {
  const std::lock_guard lock(mutex_);
  if (!running_) return Error{Error::Kind::kNotFound, "drill", "no drill is running"};
  running_->stop();
  return {};
}

}  // namespace flowkeep
