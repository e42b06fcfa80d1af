#include "controller/reconciler.h"

namespace flowkeep {
namespace {

constexpr std::chrono::milliseconds kCallDeadline{1'000};
constexpr uint32_t kEventsAtOnce = 1'000;

}  // namespace

void Reconciler::start() {
  thread_ = std::thread([this] {
    uint64_t seen = poked_.count();
    while (!stopping_) {
      run_once();
      seen = poked_.wait(seen, kPeriod);
    }
  });
}

void Reconciler::stop() {
  stopping_ = true;
  poke();
  if (thread_.joinable()) thread_.join();
}

void Reconciler::run_once() {
  for (const std::string& name : fleet_.expire_leases()) {
    deployer_.record(name, "node_lost", "",
                     "no heartbeat for 3 s; its chains are left as they are");
  }
  for (const NodeView& node : fleet_.nodes()) {
    if (stopping_) return;
    if (node.alive || first_round_) visit(node);
  }
  first_round_ = false;
}

void Reconciler::visit(const NodeView& node) {
  const auto status = node.link->status(kCallDeadline);
  fleet_.note_status(node.name(), status);
  if (!status) return;
  pull_events(node, status->started_at_s());
  deployer_.reconcile(node.name());
}

// A node counts its events anew from each start.
void Reconciler::pull_events(const NodeView& node, double start_s) {
  const auto cursor = store_.node_event_cursor(node.name(), start_s);
  if (!cursor) return;
  auto events = node.link->events(*cursor, kEventsAtOnce, kCallDeadline);
  if (!events || events->empty()) return;
  for (NodeEvent& event : *events) event.event.set_node(node.name());
  if (store_.add_node_events(node.name(), start_s, *events).ok()) changed_.raise();
}

}  // namespace flowkeep
