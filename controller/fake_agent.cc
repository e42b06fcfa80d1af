#include "controller/fake_agent.h"

#include <grpcpp/grpcpp.h>

#include <cassert>
#include <chrono>

#include "controller/clock.h"
#include "dataplane/agent.grpc.pb.h"

namespace flowkeep {

namespace api = node::v1;
using grpc::ServerContext;
using grpc::Status;

constexpr std::chrono::seconds kLastAnswers{5};  // the answer to the drill that kills it is one

class FakeAgent::Service final : public api::NodeAgent::Service {
 public:
  explicit Service(FakeAgent& agent) : agent_(agent) {}

  Status ApplyChain(ServerContext*, const api::ApplyChainRequest* request,
                    api::ApplyChainResponse* response) override {
    const std::scoped_lock lock(agent_.mutex_);
    ++agent_.apply_calls_;
    if (agent_.refusal_code_ != 0) {
      return {static_cast<grpc::StatusCode>(agent_.refusal_code_), agent_.refusal_text_};
    }
    agent_.chains_[request->revision().chain()] = request->revision();
    response->set_revision(request->revision().revision());
    return Status::OK;
  }
  Status RemoveChain(ServerContext*, const api::RemoveChainRequest* request,
                     api::RemoveChainResponse*) override {
    const std::scoped_lock lock(agent_.mutex_);
    if (agent_.chains_.erase(request->chain()) == 0) return {grpc::NOT_FOUND, "no such chain"};
    return Status::OK;
  }
  Status GetStatus(ServerContext*, const api::GetStatusRequest*, api::NodeStatus* status) override {
    const std::scoped_lock lock(agent_.mutex_);
    status->set_started_at_s(agent_.started_at_s_);
    status->set_medium("tmpfs");
    status->set_emulated(true);
    status->set_supervisor_pid(static_cast<uint64_t>(agent_.started_at_s_));
    if (agent_.forwarded_) status->set_first_forwarded_at_s(Clock().unix_s());
    for (const auto& [name, revision] : agent_.chains_) {
      api::ChainStatus& chain = *status->add_chains();
      chain.set_chain(name);
      chain.set_revision(revision.revision());
      chain.set_inside(revision.inside());
      chain.set_outside(revision.outside());
      chain.set_state("running");
      chain.set_flows(agent_.flows_.size());
      chain.set_forwarded_packets(1'000);
      (*chain.mutable_drops())["firewall_denied"] = 7;
      api::WorkerStatus& worker = *status->add_workers();
      worker.set_pid(4'242);
      worker.set_chain(name);
    }
    return Status::OK;
  }
  Status ListFlows(ServerContext*, const api::ListFlowsRequest*,
                   api::ListFlowsResponse* response) override {
    const std::scoped_lock lock(agent_.mutex_);
    for (const api::Flow& flow : agent_.flows_) *response->add_flows() = flow;
    return Status::OK;
  }
  Status ListEvents(ServerContext*, const api::ListEventsRequest* request,
                    api::ListEventsResponse* response) override {
    const std::scoped_lock lock(agent_.mutex_);
    for (const api::Event& event : agent_.events_) {
      if (event.sequence() > request->after()) *response->add_events() = event;
    }
    return Status::OK;
  }
  Status RunDrill(ServerContext* context, const api::RunDrillRequest* request,
                  grpc::ServerWriter<api::DrillProgress>* writer) override {
    std::unique_lock lock(agent_.mutex_);
    agent_.last_drill_ = *request;
    api::DrillProgress progress;
    progress.set_wanted(request->count());
    writer->Write(progress);
    agent_.drill_runs_ = true;
    agent_.drill_ends_.wait(lock, [&] {
      return !agent_.drill_waits_ || !agent_.drill_runs_ || context->IsCancelled();
    });
    *progress.mutable_report() = agent_.drill_report_;
    progress.mutable_report()->set_stopped(!agent_.drill_runs_);
    agent_.drill_runs_ = false;
    writer->Write(progress);
    if (request->kind() == "kill-node" && agent_.killed_)
      agent_.killer_ = std::thread(agent_.killed_);
    return Status::OK;
  }
  Status StopDrill(ServerContext*, const api::StopDrillRequest*, api::StopDrillResponse*) override {
    const std::scoped_lock lock(agent_.mutex_);
    if (!agent_.drill_runs_) return {grpc::NOT_FOUND, "no drill is running"};
    agent_.drill_runs_ = false;
    agent_.drill_ends_.notify_all();
    return Status::OK;
  }

 private:
  FakeAgent& agent_;
};

struct FakeAgent::Server {
  explicit Server(FakeAgent& agent) : service(agent) {}
  Service service;
  std::unique_ptr<grpc::Server> server;
};

FakeAgent::FakeAgent() {
  start();
}
FakeAgent::~FakeAgent() {
  join_kill();
  stop();
}

void FakeAgent::join_kill() {
  if (killer_.joinable()) killer_.join();
}

void FakeAgent::start() {
  int port = 0;
  auto starting = std::make_unique<Server>(*this);
  grpc::ServerBuilder builder;
  builder.AddListeningPort(address_, grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&starting->service);
  starting->server = builder.BuildAndStart();
  assert(starting->server && port != 0);
  address_ = "127.0.0.1:" + std::to_string(port);
  server_ = std::move(starting);
  const std::scoped_lock lock(mutex_);
  started_at_s_ += 1;
}

void FakeAgent::stop() {
  if (!server_) return;
  server_->server->Shutdown(std::chrono::system_clock::now() + kLastAnswers);
  server_->server->Wait();
  server_.reset();
}

double FakeAgent::started_at_s() {
  const std::scoped_lock lock(mutex_);
  return started_at_s_;
}
std::map<std::string, api::ChainRevision> FakeAgent::chains() {
  const std::scoped_lock lock(mutex_);
  return chains_;
}
void FakeAgent::set_chain(const std::string& name, uint32_t revision) {
  const std::scoped_lock lock(mutex_);
  chains_[name].set_chain(name);
  chains_[name].set_revision(revision);
}
int FakeAgent::apply_calls() {
  const std::scoped_lock lock(mutex_);
  return apply_calls_;
}
void FakeAgent::set_flows(std::vector<api::Flow> flows) {
  const std::scoped_lock lock(mutex_);
  flows_ = std::move(flows);
}
void FakeAgent::add_event(uint64_t sequence, const std::string& kind, const std::string& chain) {
  const std::scoped_lock lock(mutex_);
  api::Event& event = events_.emplace_back();
  event.set_sequence(sequence);
  event.set_at_s(started_at_s_ + static_cast<double>(sequence));
  event.set_kind(kind);
  event.set_chain(chain);
}
void FakeAgent::set_forwarded_since_start(bool forwarded) {
  const std::scoped_lock lock(mutex_);
  forwarded_ = forwarded;
}
void FakeAgent::refuse(int code, const std::string& text) {
  const std::scoped_lock lock(mutex_);
  refusal_code_ = code;
  refusal_text_ = text;
}
void FakeAgent::on_kill(std::function<void()> killed) {
  const std::scoped_lock lock(mutex_);
  killed_ = std::move(killed);
}
void FakeAgent::set_drill_report(const api::DrillReport& report) {
  const std::scoped_lock lock(mutex_);
  drill_report_ = report;
}
void FakeAgent::let_drills_wait() {
  const std::scoped_lock lock(mutex_);
  drill_waits_ = true;
}
api::RunDrillRequest FakeAgent::last_drill() {
  const std::scoped_lock lock(mutex_);
  return last_drill_;
}

}  // namespace flowkeep
