// Deployer: changes chains, and makes nodes run what the store says.
//
// A change is first accepted by the chain's node and then stored: what the node refuses changes
// nothing, and what was acknowledged is on the disk. If the controller dies in between, the node
// runs a revision that was never acknowledged; reconcile() then brings back the stored one. A node
// that is away does not refuse: the change is stored and reconcile() applies it when the node
// returns.
//
// Changes are made one at a time, whoever asks (a change waits at most kNodeDeadline for each
// before it). Threads: every method may be called from any thread.
#pragma once

#include <chrono>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "controller/change_signal.h"
#include "controller/clock.h"
#include "controller/fleet.h"
#include "controller/store.h"
#include "controller/validation.h"

namespace flowkeep {

enum class ChangeKind { kCreate, kUpdate, kApply };

class Deployer {
 public:
  static constexpr std::chrono::milliseconds kNodeDeadline{30'000};
  static constexpr double kFirstRetry_s = 1;  // doubles up to kLastRetry_s
  static constexpr double kLastRetry_s = 30;

  Deployer(Store& store, Fleet& fleet, ChangeSignal& changed, FunctionValidator functions,
           Clock clock)
      : store_(store),
        fleet_(fleet),
        changed_(changed),
        functions_(std::move(functions)),
        clock_(std::move(clock)) {}

  Result<v1::ApplyChainResponse> change(ChangeKind kind, const v1::Chain& wanted);
  // The text says so if the node will remove the chain only when it returns.
  Result<std::string> remove(const std::string& name);

  Result<v1::Chain> get(const std::string& name);
  Result<std::vector<v1::Chain>> list(const std::string& node);

  // Applies and removes what differs between the store and the node's last report.
  // Chains of which this store has never heard are left alone.
  void reconcile(const std::string& node);

  // Stores an event of the controller's own.
  void record(const std::string& node, const std::string& kind, const std::string& chain,
              const std::string& message);

 private:
  struct Failure {  // of an attempt to bring a stored revision to its node
    uint32_t revision = 0;
    std::string message;
    double retry_at_s = 0;  // steady clock
    double wait_s = 0;
    int attempts = 0;
  };

  Result<StoredChain> prepare(ChangeKind kind, const v1::Chain& wanted,
                              const std::optional<StoredChain>& current);
  Result<void> deploy(StoredChain& chain, const std::optional<StoredChain>& current);
  Result<void> ensure_running(const StoredChain& chain);
  Result<void> apply_on_node(const NodeView& node, const StoredChain& chain);
  void refresh(const NodeView& node);
  void reconcile_chains(const NodeView& node, const std::vector<StoredChain>& desired);
  void remove_strays(const NodeView& node, const std::vector<StoredChain>& desired);
  bool differs(const NodeView& node, const std::vector<StoredChain>& desired);
  bool is_due(const StoredChain& chain);
  void note_failure(const StoredChain& chain, const std::string& message);
  v1::Chain describe(const StoredChain& chain) const;

  Store& store_;
  Fleet& fleet_;
  ChangeSignal& changed_;
  FunctionValidator functions_;
  Clock clock_;
  std::timed_mutex changing_;
  mutable std::mutex failures_mutex_;
  std::map<std::string, Failure> failures_;  // by chain
};

// What a chain's status is, from the store and the node's last report. `failure`: why the last
// attempt failed.
v1::ChainStatus chain_status(const StoredChain& chain, const NodeView* node,
                             const std::string& failure);

}  // namespace flowkeep
