// What the agent reads out of the arena and the pool, as the messages of dataplane/agent.proto.
#pragma once

#include <string>
#include <vector>

#include "dataplane/agent.pb.h"
#include "dataplane/arena.h"
#include "dataplane/node_config.h"
#include "state/pool.h"

namespace flowkeep {

node::v1::NodeStatus node_status(const NodeConfig& config, const Arena& arena, const Pool& pool);
node::v1::ListEventsResponse list_events(const Arena& arena, uint64_t after, uint32_t limit);

// Index of the active chain of that name, or -1.
int chain_index(const Arena& arena, const std::string& name);
// Errors: unknown chain, a term of the filter that is not understood.
Result<node::v1::ListFlowsResponse> list_flows(const Arena& arena, const Pool& pool,
                                               const node::v1::ListFlowsRequest& request);

// Every live flow's translation, sorted by the inside key. For drills.
struct Translation {
  FlowKey inside, outside;
};
using FlowSnapshot = std::vector<Translation>;
FlowSnapshot snapshot_flows(const Arena& arena, const Pool& pool, int chain);
// Of those before, how many are there afterwards with the same translation. `changed`: with another
// one.
uint64_t count_resumed(const FlowSnapshot& before, const FlowSnapshot& after, uint64_t& changed);

}  // namespace flowkeep
