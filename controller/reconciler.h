// Reconciler: the controller's one background thread. Every second, and at once when a node comes,
// it asks each live node for its status and its new events, and has the deployer mend what differs.
// The first round asks every node: those that went on running without a controller answer.
#pragma once

#include <atomic>
#include <chrono>
#include <thread>

#include "controller/change_signal.h"
#include "controller/deployer.h"
#include "controller/fleet.h"
#include "controller/store.h"

namespace flowkeep {

class Reconciler {
 public:
  static constexpr std::chrono::milliseconds kPeriod{1'000};

  Reconciler(Store& store, Fleet& fleet, Deployer& deployer, ChangeSignal& changed)
      : store_(store), fleet_(fleet), deployer_(deployer), changed_(changed) {}
  ~Reconciler() { stop(); }
  Reconciler(const Reconciler&) = delete;
  Reconciler& operator=(const Reconciler&) = delete;

  void start();
  void stop();
  // One round, in the caller's thread. Not while the thread runs.
  void run_once();
  // Starts a round now.
  void poke() { poked_.raise(); }

 private:
  void visit(const NodeView& node);
  void pull_events(const NodeView& node, double start_s);

  Store& store_;
  Fleet& fleet_;
  Deployer& deployer_;
  ChangeSignal& changed_;
  ChangeSignal poked_;
  bool first_round_ = true;
  std::atomic<bool> stopping_ = false;
  std::thread thread_;
};

}  // namespace flowkeep
