// NodeLink: the controller's connection to one node's agent (dataplane/agent.proto).
//
// Errors: kInvalid and kNotFound are the agent's refusals, in its own words; kUnavailable means
// that no agent answers at the address (the node is away); kInternal is everything else, a deadline
// that passed included. Threads: every method may be called from any thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "controller/store.h"
#include "flowkeep/v1/flowkeep.pb.h"
#include "state/result.h"

namespace flowkeep {

class NodeLink {
 public:
  using Milliseconds = std::chrono::milliseconds;

  explicit NodeLink(const std::string& agent_address);
  ~NodeLink();
  NodeLink(const NodeLink&) = delete;
  NodeLink& operator=(const NodeLink&) = delete;

  Result<void> apply(const StoredChain& chain, Milliseconds deadline);
  Result<void> remove(const std::string& chain, Milliseconds deadline);
  Result<v1::NodeStatus> status(Milliseconds deadline);
  Result<std::vector<NodeEvent>> events(uint64_t after, uint32_t limit, Milliseconds deadline);
  Result<v1::FunctionReport> functions(const v1::FunctionReportRequest& request,
                                       Milliseconds deadline);
  Result<v1::ListFlowsResponse> flows(const v1::ListFlowsRequest& request, Milliseconds deadline);
  // Told of the progress; false ends the drill, whose report is then about what was done.
  using OnDrillProgress = std::function<bool(const v1::DrillProgress&)>;
  Result<v1::DrillReport> run_drill(const v1::RunDrillRequest& request, Milliseconds deadline,
                                    const OnDrillProgress& on_progress = nullptr);
  Result<void> stop_drill(Milliseconds deadline);

  // Waits until an established connection breaks. False: it still stands at the deadline.
  bool wait_disconnected(Milliseconds deadline);

 private:
  struct Connection;
  std::unique_ptr<Connection> connection_;
};

}  // namespace flowkeep
