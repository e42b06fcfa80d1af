// Drills: the agent's drills on workers, one at a time. Checks what is asked, runs it (DrillRun)
// and reports.
//
// Threads: run() and stop() may be called from any thread.
#pragma once

#include <functional>
#include <memory>
#include <mutex>

#include "dataplane/agent.pb.h"
#include "dataplane/arena.h"
#include "dataplane/drill/drill_run.h"
#include "dataplane/node_config.h"
#include "state/pool.h"

namespace flowkeep {

class Drills {
 public:
  // Told twice a second and, with the report, at the end. False: whoever asked is gone; the drill
  // ends.
  using OnProgress = std::function<bool(const node::v1::DrillProgress&)>;

  Drills(const NodeConfig& config, const Arena& arena, const Pool& pool, DrillRun::Hang hang)
      : config_(config), arena_(arena), pool_(pool), hang_(std::move(hang)) {}

  // Until the drill has ended. Errors: what is asked is not accepted, no such chain, another drill
  // runs.
  Result<void> run(const node::v1::RunDrillRequest& request, const OnProgress& on_progress);
  // kNotFound: no drill runs.
  Result<void> stop();

 private:
  Result<std::vector<uint32_t>> chains_of(const node::v1::RunDrillRequest& request) const;
  node::v1::DrillReport run_to_end(const node::v1::RunDrillRequest& request, DrillRun& run,
                                   const std::vector<uint32_t>& chains,
                                   const OnProgress& on_progress);

  const NodeConfig& config_;
  const Arena& arena_;
  const Pool& pool_;
  DrillRun::Hang hang_;
  std::mutex mutex_;
  std::shared_ptr<DrillRun> running_;
};

}  // namespace flowkeep
