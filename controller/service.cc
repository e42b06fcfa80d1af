#include "controller/service.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>

#include <algorithm>
#include <atomic>
#include <mutex>

#include "controller/listen_address.h"
#include "flowkeep/v1/flowkeep.grpc.pb.h"

namespace flowkeep {
namespace {

using grpc::ServerContext;
using grpc::Status;
using std::chrono::milliseconds;

constexpr milliseconds kNodeCallDeadline{5'000};
constexpr milliseconds kFlowsDeadline{30'000};
constexpr milliseconds kWatchPeriod{
    1'000};  // between looks at a watcher's connection and at nodes' reports
constexpr uint32_t kMaxFlowsListed = 1'000'000;
constexpr uint32_t kMaxEventsListed = 10'000;
constexpr uint32_t kMaxInjections = 10'000;
constexpr uint32_t kMaxStormKills = 1'000'000;
constexpr uint32_t kMaxIntervalMs = 60'000;

grpc::StatusCode code_of(Error::Kind kind) {
  switch (kind) {
    case Error::Kind::kInvalid:
      return grpc::INVALID_ARGUMENT;
    case Error::Kind::kNotFound:
      return grpc::NOT_FOUND;
    case Error::Kind::kExists:
      return grpc::ALREADY_EXISTS;
    // Not UNAVAILABLE: a client takes that for the controller being away.
    case Error::Kind::kUnavailable:
      return grpc::FAILED_PRECONDITION;
    case Error::Kind::kInternal:
      break;
  }
  return grpc::INTERNAL;
}

// A node's refusal comes as one text, with the path of the field before the first ": ".
v1::BadRequest bad_request(const Error& error) {
  v1::BadRequest request;
  auto& violation = *request.add_field_violations();
  violation.set_field(error.field);
  violation.set_description(error.message);
  const size_t colon = error.message.find(": ");
  if (error.field.empty() && error.message.starts_with("spec") && colon != std::string::npos) {
    violation.set_field(error.message.substr(0, colon));
    violation.set_description(error.message.substr(colon + 2));
  }
  return request;
}

Status status_of(const Error& error) {
  const grpc::StatusCode code = code_of(error.kind);
  if (code != grpc::INVALID_ARGUMENT) return {code, error.text()};
  v1::RpcStatus rich;
  rich.set_code(code);
  rich.set_message(error.text());
  google::protobuf::Any& detail = *rich.add_details();
  detail.set_type_url("type.googleapis.com/google.rpc.BadRequest");
  detail.set_value(bad_request(error).SerializeAsString());
  return {code, error.text(), rich.SerializeAsString()};
}

template <typename T>
Status status_of(const Result<T>& result) {
  return result ? Status::OK : status_of(result.error());
}

// Bounds the threads that watches hold, and ends them when the server stops.
class Watches {
 public:
  bool enter() {
    if (open_.fetch_add(1) < ApiServer::kMaxWatches) return true;
    open_.fetch_sub(1);
    return false;
  }
  void leave() { open_.fetch_sub(1); }
  void end() { ending_ = true; }
  bool ending() const { return ending_; }

 private:
  std::atomic<int> open_ = 0;
  std::atomic<bool> ending_ = false;
};

// Calls `send` now and after each change until it returns false, the client leaves or the server
// stops.
template <typename Send>
Status watch(ServerContext& context, Watches& watches, const ChangeSignal& changed, Send send) {
  if (!watches.enter()) {
    return {grpc::RESOURCE_EXHAUSTED,
            "too many watches; at most " + std::to_string(ApiServer::kMaxWatches)};
  }
  uint64_t seen = changed.count();
  Status status = Status::OK;
  while (status.ok() && !context.IsCancelled() && !watches.ending()) {
    status = send();
    if (status.ok()) seen = changed.wait(seen, kWatchPeriod);
  }
  watches.leave();
  if (status.ok() && watches.ending()) return {grpc::UNAVAILABLE, "the controller is stopping"};
  return status;
}

// The chain's name if one is given, else that of the only chain.
Result<v1::Chain> chain_or_only(Deployer& deployer, const std::string& name) {
  if (!name.empty()) return deployer.get(name);
  auto chains = deployer.list("");
  if (!chains) return chains.error();
  if (chains->size() == 1) return std::move(chains->front());
  if (chains->empty()) return unavailable("chain", "there is no chain; apply one first");
  std::string names;
  for (const v1::Chain& chain : *chains) names += (names.empty() ? "" : ", ") + chain.name();
  return invalid("chain", "is missing, and there are several: " + names);
}

Result<NodeView> live_node(const Fleet& fleet, const std::string& name) {
  auto node = fleet.node(name);
  if (!node) return Error{Error::Kind::kNotFound, "", "there is no node \"" + name + "\""};
  if (!node->alive) return unavailable("node", "node \"" + name + "\" is away");
  return std::move(*node);
}

Result<NodeView> node_or_only(const Fleet& fleet, const std::string& name) {
  if (!name.empty()) return live_node(fleet, name);
  const auto nodes = fleet.nodes();
  if (nodes.empty()) return unavailable("node", "no node is registered");
  if (nodes.size() == 1) return live_node(fleet, nodes.front().name());
  std::string names;
  for (const NodeView& node : nodes) names += (names.empty() ? "" : ", ") + node.name();
  return invalid("node", "is missing, and there are several: " + names);
}

// ---- Chains
// -----------------------------------------------------------------------------------------

class ChainsService final : public v1::Chains::Service {
 public:
  ChainsService(const ApiParts& parts, Watches& watches) : parts_(parts), watches_(watches) {}

  Status Create(ServerContext*, const v1::CreateChainRequest* request,
                v1::Chain* response) override {
    return change(ChangeKind::kCreate, request->chain(), *response);
  }
  Status Update(ServerContext*, const v1::UpdateChainRequest* request,
                v1::Chain* response) override {
    return change(ChangeKind::kUpdate, request->chain(), *response);
  }
  Status Apply(ServerContext*, const v1::ApplyChainRequest* request,
               v1::ApplyChainResponse* response) override {
    auto applied = parts_.deployer.change(ChangeKind::kApply, request->chain());
    if (applied) *response = std::move(*applied);
    return status_of(applied);
  }
  Status Delete(ServerContext*, const v1::DeleteChainRequest* request,
                v1::DeleteChainResponse* response) override {
    const auto removed = parts_.deployer.remove(request->name());
    if (removed) response->set_message(*removed);
    return status_of(removed);
  }
  Status Get(ServerContext*, const v1::GetChainRequest* request, v1::Chain* response) override {
    auto chain = parts_.deployer.get(request->name());
    if (chain) *response = std::move(*chain);
    return status_of(chain);
  }
  Status List(ServerContext*, const v1::ListChainsRequest* request,
              v1::ListChainsResponse* response) override {
    auto chains = parts_.deployer.list(request->node());
    if (!chains) return status_of(chains);
    for (v1::Chain& chain : *chains) *response->add_chains() = std::move(chain);
    return Status::OK;
  }
  Status Watch(ServerContext* context, const v1::WatchChainsRequest*,
               grpc::ServerWriter<v1::WatchChainsResponse>* writer) override {
    std::map<std::string, std::string> sent;  // name -> what of it was sent
    return watch(*context, watches_, parts_.changed, [&] { return send_changes(sent, *writer); });
  }

 private:
  Status change(ChangeKind kind, const v1::Chain& wanted, v1::Chain& response) {
    auto changed = parts_.deployer.change(kind, wanted);
    if (changed) response = std::move(*changed->mutable_chain());
    return status_of(changed);
  }

  Status send_changes(std::map<std::string, std::string>& sent,
                      grpc::ServerWriter<v1::WatchChainsResponse>& writer) {
    auto chains = parts_.deployer.list("");
    if (!chains) return status_of(chains);
    std::map<std::string, std::string> current;
    for (v1::Chain& chain : *chains) {
      std::string& mark = current[chain.name()];
      mark = std::to_string(chain.revision()) + chain.status().phase() + chain.status().message();
      const auto known = sent.find(chain.name());
      if (known != sent.end() && known->second == mark) continue;
      v1::WatchChainsResponse response;
      *response.mutable_chain() = std::move(chain);
      if (!writer.Write(response)) return Status::CANCELLED;
    }
    for (const auto& [name, mark] : sent) {
      if (current.contains(name)) continue;
      v1::WatchChainsResponse response;
      response.mutable_chain()->set_name(name);
      response.set_deleted(true);
      if (!writer.Write(response)) return Status::CANCELLED;
    }
    sent = std::move(current);
    return Status::OK;
  }

  ApiParts parts_;
  Watches& watches_;
};

// ---- Nodes
// ------------------------------------------------------------------------------------------

class NodesService final : public v1::Nodes::Service {
 public:
  explicit NodesService(const ApiParts& parts) : parts_(parts) {}

  Status Register(ServerContext*, const v1::RegisterRequest* request,
                  v1::RegisterResponse*) override {
    const auto before = parts_.fleet.node(request->name());
    const auto registered = parts_.fleet.register_node(*request);
    if (!registered) return status_of(registered);
    if (!before || !before->alive ||
        before->registration.started_at_s() != request->started_at_s()) {
      parts_.deployer.record(request->name(), "node_registered", "",
                             "agent at " + request->agent_address());
    }
    parts_.reconciler.poke();
    return Status::OK;
  }
  Status Heartbeat(ServerContext*, const v1::HeartbeatRequest* request,
                   v1::HeartbeatResponse*) override {
    return status_of(parts_.fleet.heartbeat(*request));
  }
  Status Get(ServerContext*, const v1::GetNodeRequest* request, v1::Node* response) override {
    const auto node = parts_.fleet.node(request->name());
    if (!node) return {grpc::NOT_FOUND, "there is no node \"" + request->name() + "\""};
    describe(*node, *response);
    return Status::OK;
  }
  Status List(ServerContext*, const v1::ListNodesRequest*,
              v1::ListNodesResponse* response) override {
    for (const NodeView& node : parts_.fleet.nodes()) describe(node, *response->add_nodes());
    return Status::OK;
  }

 private:
  void describe(const NodeView& view, v1::Node& node) {
    node.set_name(view.name());
    node.set_agent_address(view.registration.agent_address());
    *node.mutable_ports() = view.registration.ports();
    node.set_medium(view.registration.medium());
    node.set_medium_survives(view.registration.medium_survives());
    node.set_started_at_s(view.registration.started_at_s());
    node.set_version(view.registration.version());
    node.set_alive(view.alive);
    node.set_registered_at_s(view.registered_at_s);
    node.set_last_heartbeat_s(view.last_heartbeat_s);
    node.set_message(view.alive ? view.trouble : "");
    if (view.status) *node.mutable_status() = *view.status;
    if (const auto chains = parts_.deployer.list(view.name())) {
      for (const v1::Chain& chain : *chains) node.add_chains(chain.name());
    }
  }

  ApiParts parts_;
};

// ---- What runs
// --------------------------------------------------------------------------------------

// Every matching node's status as of now; the names of those that do not answer.
struct Reports {
  std::vector<v1::NodeStatus> nodes;
  std::vector<std::string> unreachable;
};

Reports ask_nodes(const Fleet& fleet, const std::string& name) {
  Reports reports;
  for (const NodeView& node : fleet.nodes()) {
    if (!name.empty() && node.name() != name) continue;
    auto status = node.alive ? node.link->status(kNodeCallDeadline) : unavailable("", "");
    if (!status) {
      reports.unreachable.push_back(node.name());
      continue;
    }
    status->set_name(node.name());
    reports.nodes.push_back(std::move(*status));
  }
  return reports;
}

Status check_exists(const ApiParts& parts, const std::string& chain, const std::string& node) {
  if (!node.empty() && !parts.fleet.node(node))
    return {grpc::NOT_FOUND, "there is no node \"" + node + "\""};
  if (chain.empty()) return Status::OK;
  return status_of(parts.deployer.get(chain));
}

class WorkersService final : public v1::Workers::Service {
 public:
  explicit WorkersService(const ApiParts& parts) : parts_(parts) {}

  Status List(ServerContext*, const v1::ListWorkersRequest* request,
              v1::ListWorkersResponse* response) override {
    const Status exists = check_exists(parts_, request->chain(), request->node());
    if (!exists.ok()) return exists;
    const Reports reports = ask_nodes(parts_.fleet, request->node());
    for (const v1::NodeStatus& node : reports.nodes) {
      for (const v1::Worker& worker : node.workers()) {
        if (!request->chain().empty() && worker.chain() != request->chain()) continue;
        v1::Worker& added = *response->add_workers();
        added = worker;
        added.set_node(node.name());
      }
    }
    for (const std::string& name : reports.unreachable) response->add_unreachable_nodes(name);
    return Status::OK;
  }

 private:
  ApiParts parts_;
};

template <typename Items, typename Keep>
void keep_if(Items& items, Keep keep) {
  items.erase(
      std::remove_if(items.begin(), items.end(), [&](const auto& item) { return !keep(item); }),
      items.end());
}

class StatisticsService final : public v1::Statistics::Service {
 public:
  explicit StatisticsService(const ApiParts& parts) : parts_(parts) {}

  Status Get(ServerContext*, const v1::GetStatisticsRequest* request,
             v1::GetStatisticsResponse* response) override {
    const Status exists = check_exists(parts_, request->chain(), request->node());
    if (!exists.ok()) return exists;
    Reports reports = ask_nodes(parts_.fleet, request->node());
    response->set_at_s(parts_.clock.unix_s());
    for (v1::NodeStatus& node : reports.nodes) {
      if (!request->chain().empty() && !narrow(node, request->chain())) continue;
      *response->add_nodes() = std::move(node);
    }
    for (const std::string& name : reports.unreachable) response->add_unreachable_nodes(name);
    return Status::OK;
  }

  Status ReportFunctions(ServerContext*, const v1::FunctionReportRequest* request,
                         v1::FunctionReport* response) override {
    const auto chain = chain_or_only(parts_.deployer, request->chain());
    if (!chain) return status_of(chain);
    const auto node = live_node(parts_.fleet, chain->spec().node());
    if (!node) return status_of(node);
    v1::FunctionReportRequest asked = *request;
    asked.set_chain(chain->name());
    auto report = node->link->functions(asked, kFlowsDeadline);
    if (report) *response = std::move(*report);
    return status_of(report);
  }

 private:
  // Leaves only what belongs to the chain. False: the node does not have it.
  static bool narrow(v1::NodeStatus& node, const std::string& chain) {
    keep_if(*node.mutable_chains(), [&](const v1::ChainCounters& c) { return c.chain() == chain; });
    if (node.chains().empty()) return false;
    const v1::ChainCounters& kept = node.chains(0);
    keep_if(*node.mutable_workers(), [&](const v1::Worker& w) { return w.chain() == chain; });
    keep_if(*node.mutable_ports(), [&](const v1::PortStatus& p) {
      return p.name() == kept.inside() || p.name() == kept.outside();
    });
    return true;
  }

  ApiParts parts_;
};

class FlowsService final : public v1::Flows::Service {
 public:
  explicit FlowsService(const ApiParts& parts) : parts_(parts) {}

  Status List(ServerContext*, const v1::ListFlowsRequest* request,
              v1::ListFlowsResponse* response) override {
    if (request->limit() > kMaxFlowsListed) {
      return status_of(invalid("limit", std::to_string(request->limit()) +
                                            " is too many; accepted: up to " +
                                            std::to_string(kMaxFlowsListed)));
    }
    const auto chain = chain_or_only(parts_.deployer, request->chain());
    if (!chain) return status_of(chain);
    const auto node = live_node(parts_.fleet, chain->spec().node());
    if (!node) return status_of(node);
    v1::ListFlowsRequest asked = *request;
    asked.set_chain(chain->name());
    auto flows = node->link->flows(asked, kFlowsDeadline);
    if (flows) *response = std::move(*flows);
    return status_of(flows);
  }

 private:
  ApiParts parts_;
};

// ---- Drills
// -----------------------------------------------------------------------------------------

class DrillsService final : public v1::Drills::Service {
 public:
  explicit DrillsService(const ApiParts& parts) : parts_(parts) {}

  Status Run(ServerContext* context, const v1::RunDrillRequest* request,
             v1::DrillReport* response) override {
    auto report =
        run_alone(*request, [&](const v1::DrillProgress&) { return !context->IsCancelled(); });
    if (!report) return status_of(report);
    *response = std::move(*report);
    return Status::OK;
  }

  Status RunWithProgress(ServerContext* context, const v1::RunDrillRequest* request,
                         grpc::ServerWriter<v1::DrillProgress>* writer) override {
    auto report = run_alone(*request, [&](const v1::DrillProgress& progress) {
      return !context->IsCancelled() && writer->Write(progress);
    });
    if (!report) return status_of(report);
    v1::DrillProgress last;
    last.set_injected(report->kills());
    last.set_elapsed_s(report->duration_s());
    *last.mutable_report() = std::move(*report);
    writer->Write(last);
    return Status::OK;
  }

  Status Stop(ServerContext*, const v1::StopDrillRequest*, v1::StopDrillResponse*) override {
    std::shared_ptr<NodeLink> link;
    {
      const std::lock_guard lock(link_mutex_);
      link = link_;
    }
    if (!link) return {grpc::NOT_FOUND, "no drill is running that can be ended"};
    return status_of(link->stop_drill(kNodeCallDeadline));
  }

 private:
  using OnProgress = NodeLink::OnDrillProgress;

  Result<v1::DrillReport> run_alone(const v1::RunDrillRequest& request,
                                    const OnProgress& on_progress) {
    const std::unique_lock lock(running_, std::try_to_lock);
    if (!lock.owns_lock())
      return unavailable("", "another drill is running; two would spoil each other's figures");
    std::string node = request.node();
    auto report = run(request, on_progress, node);
    if (!report) return report.error();
    const auto& checks = report->checks();
    const bool passed =
        std::all_of(checks.begin(), checks.end(), [](const v1::DrillCheck& c) { return c.ok(); });
    parts_.deployer.record(node, "drill_run", report->chain(),
                           report->kind() + (passed ? ": passed" : ": a check failed"));
    return report;
  }

  // Sets `on` to the node that it ran on.
  Result<v1::DrillReport> run(const v1::RunDrillRequest& request, const OnProgress& on_progress,
                              std::string& on) {
    if (request.kind() == "kill-node" || request.kind() == "power-cut") {
      const auto node = node_or_only(parts_.fleet, request.node());
      if (!node) return node.error();
      on = node->name();
      return KillNodeDrill(parts_.fleet, parts_.changed, parts_.clock, parts_.kill_node_limits)
          .run(node->name(), request);
    }
    if (request.kind() == "kill-worker" || request.kind() == "hang-worker" ||
        request.kind() == "storm")
      return run_on_node(request, on_progress, on);
    return invalid(
        "kind",
        "\"" + request.kind() +
            "\" is no drill; accepted: kill-worker, hang-worker, storm, kill-node, power-cut");
  }

  Result<NodeView> node_of(v1::RunDrillRequest& request) {
    if (request.kind() == "storm" && request.chain().empty())
      return node_or_only(parts_.fleet, request.node());
    const auto chain = chain_or_only(parts_.deployer, request.chain());
    if (!chain) return chain.error();
    request.set_chain(chain->name());
    return live_node(parts_.fleet, chain->spec().node());
  }

  Result<v1::DrillReport> run_on_node(v1::RunDrillRequest request, const OnProgress& on_progress,
                                      std::string& on) {
    const uint32_t most = request.kind() == "storm" ? kMaxStormKills : kMaxInjections;
    if (request.count() > most) {
      return invalid("count", std::to_string(request.count()) + " is too many; accepted: 1 to " +
                                  std::to_string(most));
    }
    if (request.interval_ms() > kMaxIntervalMs || request.interval_us() / 1000 > kMaxIntervalMs) {
      return invalid("interval_ms",
                     std::to_string(std::max(request.interval_ms(), request.interval_us() / 1000)) +
                         " is too long; accepted: 1 to " + std::to_string(kMaxIntervalMs));
    }
    const auto node = node_of(request);
    if (!node) return node.error();
    on = node->name();
    request.set_count(std::max(1u, request.count()));
    request.set_interval_ms(request.interval_ms() == 0 ? 100 : request.interval_ms());
    const uint64_t longest_interval_ms =
        std::max<uint64_t>(request.interval_ms(), request.interval_us() / 1000);
    const milliseconds deadline(60'000 + request.count() * (longest_interval_ms + uint64_t{2'000}));
    {
      const std::lock_guard lock(link_mutex_);
      link_ = node->link;
    }
    auto report = node->link->run_drill(request, deadline, on_progress);
    const std::lock_guard lock(link_mutex_);
    link_.reset();
    return report;
  }

  ApiParts parts_;
  std::mutex running_;
  std::mutex link_mutex_;
  std::shared_ptr<NodeLink> link_;  // to the node whose drill runs
};

// ---- Events
// -----------------------------------------------------------------------------------------

class EventsService final : public v1::Events::Service {
 public:
  EventsService(const ApiParts& parts, Watches& watches) : parts_(parts), watches_(watches) {}

  Status List(ServerContext*, const v1::ListEventsRequest* request,
              v1::ListEventsResponse* response) override {
    const uint32_t limit =
        request->limit() == 0 ? 100 : std::min(request->limit(), kMaxEventsListed);
    auto events = parts_.store.events(request->after(), limit, request->chain());
    if (!events) return status_of(events);
    for (v1::Event& event : *events) *response->add_events() = std::move(event);
    return Status::OK;
  }
  Status Watch(ServerContext* context, const v1::WatchEventsRequest* request,
               grpc::ServerWriter<v1::Event>* writer) override {
    uint64_t after = request->after();
    if (after == 0) {
      const auto last = parts_.store.last_event_sequence();
      if (!last) return status_of(last);
      after = *last;
    }
    return watch(*context, watches_, parts_.changed,
                 [&] { return send_after(after, request->chain(), *writer); });
  }

 private:
  // after == 0 (an empty store) would mean the newest; from an empty store those are all.
  Status send_after(uint64_t& after, const std::string& chain,
                    grpc::ServerWriter<v1::Event>& writer) {
    const auto events = parts_.store.events(after, kMaxEventsListed, chain);
    if (!events) return status_of(events);
    for (const v1::Event& event : *events) {
      if (!writer.Write(event)) return Status::CANCELLED;
      after = event.sequence();
    }
    return Status::OK;
  }

  ApiParts parts_;
  Watches& watches_;
};

}  // namespace

struct ApiServer::Running {
  explicit Running(const ApiParts& parts)
      : changed(parts.changed),
        chains(parts, watches),
        nodes(parts),
        workers(parts),
        statistics(parts),
        flows(parts),
        drills(parts),
        events(parts, watches) {}

  ChangeSignal& changed;
  Watches watches;
  ChainsService chains;
  NodesService nodes;
  WorkersService workers;
  StatisticsService statistics;
  FlowsService flows;
  DrillsService drills;
  EventsService events;
  int port = 0;
  std::unique_ptr<grpc::Server> server;
};

ApiServer::ApiServer(std::unique_ptr<Running> running) : running_(std::move(running)) {}
ApiServer::~ApiServer() {
  stop();
}
int ApiServer::port() const {
  return running_->port;
}

Result<std::unique_ptr<ApiServer>> ApiServer::start(const ApiParts& parts,
                                                    const std::string& listen) {
  const auto free = check_listen_address(listen);
  if (!free) return free.error();
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  auto running = std::make_unique<Running>(parts);
  grpc::ServerBuilder builder;
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT,
                             0);               // a second controller must fail, not share the port
  builder.SetMaxReceiveMessageSize(64 << 20);  // a chain with 10,000 rules
  builder.AddListeningPort(listen, grpc::InsecureServerCredentials(), &running->port);
  const std::initializer_list<grpc::Service*> services = {
      &running->chains, &running->nodes,  &running->workers, &running->statistics,
      &running->flows,  &running->drills, &running->events};
  for (grpc::Service* service : services) builder.RegisterService(service);
  running->server = builder.BuildAndStart();
  if (!running->server || running->port == 0) {
    return unavailable("--listen", "cannot listen on \"" + listen + "\"");
  }
  running->server->GetHealthCheckService()->SetServingStatus(true);
  return std::unique_ptr<ApiServer>(new ApiServer(std::move(running)));
}

void ApiServer::stop() {
  if (!running_->server) return;
  running_->watches.end();
  running_->changed.raise();
  running_->server->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(3));
  running_->server->Wait();
  running_->server.reset();
}

}  // namespace flowkeep
