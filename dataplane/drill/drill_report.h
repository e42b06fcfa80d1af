// The report of a drill on workers: what was measured (DrillRun) and what the flows say, as
// figures with percentiles and checks.
#pragma once

#include <vector>

#include "dataplane/agent.pb.h"
#include "dataplane/agent_status.h"
#include "dataplane/drill/drill_run.h"

namespace flowkeep {

// By rank in the sorted values: the smallest value that at least that share does not exceed.
node::v1::DrillPercentiles percentiles(std::vector<double> values);

// Indexes of the injections that took longest to be over, the worst first; without end is longest.
std::vector<size_t> worst(const std::vector<Injection>& injections, size_t count);

struct ChainFlows {
  uint32_t chain = 0;  // index in the arena
  FlowSnapshot before, after;
};

node::v1::DrillReport make_report(const Arena& arena, const node::v1::RunDrillRequest& request,
                                  const DrillRun& run, const std::vector<ChainFlows>& flows);

}  // namespace flowkeep
