// The kill-node drill: the whole process tree of a node dies by SIGKILL. Measures when the
// controller knows, when the node is back, when it forwards again, and whether each flow kept its
// external endpoint.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "controller/change_signal.h"
#include "controller/clock.h"
#include "controller/fleet.h"

namespace flowkeep {

struct KillNodeLimits {
  std::chrono::milliseconds detection{10'000};
  std::chrono::milliseconds back{30'000};
  std::chrono::milliseconds first_packet{10'000};
  std::chrono::milliseconds poll{20};  // of the returned node's status
};

class KillNodeDrill {
 public:
  KillNodeDrill(Fleet& fleet, const ChangeSignal& changed, Clock clock, KillNodeLimits limits = {})
      : fleet_(fleet), changed_(changed), clock_(std::move(clock)), limits_(limits) {}

  // An error: the drill could not begin. A node that does not return is a report with failed
  // checks.
  // `order`: kill-node, or power-cut with a seed: the same, and the node's next start finds its
  // pool as a power cut could have left it.
  Result<v1::DrillReport> run(const std::string& node, v1::RunDrillRequest order);

 private:
  struct ChainFlow {
    std::string chain;
    v1::Flow flow;
  };
  struct Times {  // seconds after the kill; -1: did not happen
    double detected = -1;
    double back = -1;
    double running = -1;
    double first_packet = -1;
  };

  static void report_power_cut(const v1::NodeStatus& after, uint64_t seed, v1::DrillReport& report);
  Result<std::vector<ChainFlow>> flows(NodeLink& link, const v1::NodeStatus& status);
  std::optional<NodeView> wait_back(const std::string& node, double old_start_s);
  // Until the chains run again and a packet was forwarded, or the limits.
  v1::NodeStatus wait_working(NodeLink& link, const v1::NodeStatus& before, double killed_at_s,
                              double killed_steady_s, Times& times);

  Fleet& fleet_;
  const ChangeSignal& changed_;
  Clock clock_;
  KillNodeLimits limits_;
};

// May a flow that was there before be gone, without anything having been lost? Only if its time-out
// passed.
bool may_have_ended(const v1::Flow& before, double now_s);

}  // namespace flowkeep
