// What a chain's functions counted and told (dataplane/chain_counters.h, dataplane/event_ring.h),
// with names, for the agent's API.
//
// Thread rule: any thread of the agent.
#pragma once

#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "dataplane/agent.pb.h"
#include "dataplane/arena.h"

namespace flowkeep {

// Names of the counters of the revisions that run, from the revisions that the node has saved.
class CounterNames {
 public:
  explicit CounterNames(std::string state_dir) : state_dir_(std::move(state_dir)) {}
  // Empty: the revision is not the saved one, as after a roll-back.
  std::vector<std::string> of(const std::string& chain, uint32_t revision);

 private:
  struct Known {
    uint32_t revision = 0;
    std::vector<std::string> names;
  };
  std::string state_dir_;
  std::mutex mutex_;
  std::map<std::string, Known> known_;
};

// Errors: no such chain.
Result<node::v1::FunctionReport> function_report(const Arena& arena, CounterNames& names,
                                                 const node::v1::FunctionReportRequest& request);

}  // namespace flowkeep
