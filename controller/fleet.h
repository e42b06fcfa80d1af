// Fleet: the nodes that ever registered, which of them hold their lease, and what they last
// reported.
//
// A registration is stored before it is acknowledged; leases and reports live in memory only. After
// a restart of the controller a node counts as away until it is heard of: by a heartbeat, or by its
// answer to the reconciler's first round. Threads: every method may be called from any thread.
// Views are copies.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "controller/change_signal.h"
#include "controller/clock.h"
#include "controller/node_link.h"
#include "controller/store.h"

namespace flowkeep {

struct NodeView {
  v1::RegisterRequest registration;
  double registered_at_s = 0;
  bool alive = false;
  double last_heartbeat_s = 0;           // Unix time; 0: none yet
  std::optional<v1::NodeStatus> status;  // the last report
  double status_at_s = 0;                // Unix time of it
  std::string trouble;                   // why there is no newer report; empty: there is
  std::shared_ptr<NodeLink> link;

  const std::string& name() const { return registration.name(); }
  // What the node last said about a chain, or null.
  const v1::ChainCounters* counters(const std::string& chain) const;
};

class Fleet {
 public:
  static constexpr double kLease_s = 3;

  // Knows the nodes that the store holds.
  static Result<std::unique_ptr<Fleet>> open(Store& store, ChangeSignal& changed, Clock clock);

  Result<void> register_node(const v1::RegisterRequest& request);
  // kNotFound: this start of the node has to register first.
  Result<void> heartbeat(const v1::HeartbeatRequest& request);

  std::vector<NodeView> nodes() const;
  std::optional<NodeView> node(const std::string& name) const;

  // A report is a sign of life too, if it comes from the start of the node that registered.
  void note_status(const std::string& name, const Result<v1::NodeStatus>& status);
  // Nodes whose lease ended since the last call.
  std::vector<std::string> expire_leases();

 private:
  struct Member {
    NodeView view;
    double heartbeat_steady_s = 0;
    bool had_lease = false;
  };

  Fleet(Store& store, ChangeSignal& changed, Clock clock)
      : store_(store), changed_(changed), clock_(std::move(clock)) {}
  NodeView view_of(const Member& member) const;
  void beat(Member& member);

  Store& store_;
  ChangeSignal& changed_;
  Clock clock_;
  mutable std::mutex mutex_;
  std::map<std::string, Member> members_;
};

}  // namespace flowkeep
