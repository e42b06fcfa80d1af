// FakeAgent: a node for tests of the controller: serves dataplane/agent.proto from memory on a port
// of its own.
#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "dataplane/agent.pb.h"

namespace flowkeep {

class FakeAgent {
 public:
  FakeAgent();
  ~FakeAgent();
  FakeAgent(const FakeAgent&) = delete;
  FakeAgent& operator=(const FakeAgent&) = delete;

  const std::string& address() const { return address_; }

  // Dies, once the calls in progress are answered; listens on the same port again. Chains and flows
  // stay, as in a state pool.
  void stop();
  void start();
  double started_at_s();

  // What it runs.
  std::map<std::string, node::v1::ChainRevision> chains();
  void set_chain(const std::string& name, uint32_t revision);
  int apply_calls();
  void set_flows(std::vector<node::v1::Flow> flows);
  void add_event(uint64_t sequence, const std::string& kind, const std::string& chain);
  void set_forwarded_since_start(bool forwarded);

  // The next ApplyChain fails with this gRPC code and text; 0 again: none does.
  void refuse(int code, const std::string& text);
  // Called by RunDrill(kill-node), in a thread of its own; join_kill() waits until it has ended.
  void on_kill(std::function<void()> killed);
  void join_kill();
  // What RunDrill answers for workers.
  void set_drill_report(const node::v1::DrillReport& report);
  node::v1::RunDrillRequest last_drill();
  // From now on drills run until they are stopped.
  void let_drills_wait();

 private:
  class Service;
  struct Server;

  std::mutex mutex_;
  std::map<std::string, node::v1::ChainRevision> chains_;
  std::vector<node::v1::Flow> flows_;
  std::vector<node::v1::Event> events_;
  node::v1::DrillReport drill_report_;
  node::v1::RunDrillRequest last_drill_;
  std::condition_variable drill_ends_;
  bool drill_waits_ = false;
  bool drill_runs_ = false;
  std::function<void()> killed_;
  std::thread killer_;
  int apply_calls_ = 0;
  int refusal_code_ = 0;
  std::string refusal_text_;
  bool forwarded_ = true;
  double started_at_s_ = 1'000;
  std::string address_ = "127.0.0.1:0";
  std::unique_ptr<Server> server_;
};

}  // namespace flowkeep
