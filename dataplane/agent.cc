#include "dataplane/agent.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstdio>
#include <future>
#include <map>
#include <mutex>
#include <thread>

#include "dataplane/agent.grpc.pb.h"
#include "dataplane/agent_status.h"
#include "dataplane/chain_revision.h"
#include "dataplane/drill/drills.h"
#include "dataplane/function_report.h"
#include "dataplane/supervisor.pb.h"
#include "flowkeep/v1/flowkeep.grpc.pb.h"
#include "state/emulated_medium.h"

namespace flowkeep {
namespace {

using node::internal::Reply;
using node::internal::Request;

constexpr auto kHeartbeat = std::chrono::seconds(1);
constexpr auto kSupervisorPatience = std::chrono::minutes(30);  // a large revision is built

grpc::Status to_status(const Error& error) {
  grpc::StatusCode code = grpc::StatusCode::INTERNAL;
  switch (error.kind) {
    case Error::Kind::kInvalid:
      code = grpc::StatusCode::INVALID_ARGUMENT;
      break;
    case Error::Kind::kNotFound:
      code = grpc::StatusCode::NOT_FOUND;
      break;
    case Error::Kind::kExists:
      code = grpc::StatusCode::ALREADY_EXISTS;
      break;
    case Error::Kind::kUnavailable:  // now; UNAVAILABLE is the transport's word for a dead agent
      code = grpc::StatusCode::FAILED_PRECONDITION;
      break;
    case Error::Kind::kInternal:
      break;
  }
  return {code, error.text()};
}

grpc::Status to_status(const Result<void>& result) {
  return result ? grpc::Status::OK : to_status(result.error());
}

// Requests to the supervisor and their answers, matched by number. Any thread may ask.
class SupervisorLink {
 public:
  explicit SupervisorLink(int socket) : socket_(socket), reader_([this] { read_replies(); }) {}

  Result<Reply> ask(Request request) {
    std::future<Reply> answer;
    {
      const std::lock_guard lock(mutex_);
      request.set_id(++last_id_);
      answer = waiting_[request.id()].get_future();
      if (!send_frame(socket_, request.SerializeAsString()))
        return internal_error("node", "the supervisor is gone");
    }
    if (answer.wait_for(kSupervisorPatience) != std::future_status::ready)
      return internal_error("node", "the supervisor does not answer");
    Reply reply = answer.get();
    if (!reply.failed()) return reply;
    return Error{static_cast<Error::Kind>(reply.error_kind()), reply.error_field(),
                 reply.error_message()};
  }

 private:
  void read_replies() {
    std::string input;
    while (receive_frames(socket_, input, Wait::kForInput)) {
      while (std::optional<std::string> frame = take_frame(input)) {
        Reply reply;
        if (!reply.ParseFromString(*frame)) continue;
        const std::lock_guard lock(mutex_);
        const auto found = waiting_.find(reply.id());
        if (found == waiting_.end()) continue;
        found->second.set_value(std::move(reply));
        waiting_.erase(found);
      }
    }
    _exit(0);  // without a supervisor there is no node
  }

  int socket_;
  std::mutex mutex_;
  uint64_t last_id_ = 0;
  std::map<uint64_t, std::promise<Reply>> waiting_;
  std::thread reader_;
};

class NodeAgentService final : public node::v1::NodeAgent::Service {
 public:
  NodeAgentService(const NodeConfig& config, const Arena& arena, const Pool& pool,
                   int supervisor_socket)
      : config_(config),
        arena_(arena),
        pool_(pool),
        counter_names_(config.state_dir),
        supervisor_(supervisor_socket),
        drills_(config, arena, pool, [this](uint32_t process, pid_t pid, BurstStep step) {
          return hang(process, pid, step);
        }) {}

  grpc::Status ApplyChain(grpc::ServerContext*, const node::v1::ApplyChainRequest* request,
                          node::v1::ApplyChainResponse* response) override {
    Request ask;
    *ask.mutable_apply() = *request;
    Result<Reply> reply = supervisor_.ask(std::move(ask));
    if (!reply) return to_status(reply.error());
    if (Result<void> saved = save_revision(config_.state_dir, request->revision()); !saved)
      return to_status(saved.error());
    *response = reply->applied();
    return grpc::Status::OK;
  }

  grpc::Status RemoveChain(grpc::ServerContext*, const node::v1::RemoveChainRequest* request,
                           node::v1::RemoveChainResponse*) override {
    if (Result<void> forgotten = forget_revision(config_.state_dir, request->chain()); !forgotten)
      return to_status(forgotten.error());
    Request ask;
    *ask.mutable_remove() = *request;
    Result<Reply> reply = supervisor_.ask(std::move(ask));
    return reply ? grpc::Status::OK : to_status(reply.error());
  }

  grpc::Status GetStatus(grpc::ServerContext*, const node::v1::GetStatusRequest*,
                         node::v1::NodeStatus* response) override {
    *response = node_status(config_, arena_, pool_);
    return grpc::Status::OK;
  }

  grpc::Status ReportFunctions(grpc::ServerContext*, const node::v1::FunctionReportRequest* request,
                               node::v1::FunctionReport* response) override {
    Result<node::v1::FunctionReport> report = function_report(arena_, counter_names_, *request);
    if (!report) return to_status(report.error());
    *response = std::move(*report);
    return grpc::Status::OK;
  }

  grpc::Status ListFlows(grpc::ServerContext*, const node::v1::ListFlowsRequest* request,
                         node::v1::ListFlowsResponse* response) override {
    Result<node::v1::ListFlowsResponse> flows = list_flows(arena_, pool_, *request);
    if (!flows) return to_status(flows.error());
    *response = std::move(*flows);
    return grpc::Status::OK;
  }

  grpc::Status ListEvents(grpc::ServerContext*, const node::v1::ListEventsRequest* request,
                          node::v1::ListEventsResponse* response) override {
    *response = list_events(arena_, request->after(), request->limit());
    return grpc::Status::OK;
  }

  grpc::Status RunDrill(grpc::ServerContext* context, const node::v1::RunDrillRequest* request,
                        grpc::ServerWriter<node::v1::DrillProgress>* writer) override {
    if (request->kind() == "kill-node") return kill_node(*writer);
    if (request->kind() == "power-cut") {
      const Result<void> ordered = order_power_cut(request->seed());
      return ordered ? kill_node(*writer) : to_status(ordered);
    }
    return to_status(drills_.run(*request, [&](const node::v1::DrillProgress& progress) {
      return !context->IsCancelled() && writer->Write(progress);
    }));
  }

  grpc::Status StopDrill(grpc::ServerContext*, const node::v1::StopDrillRequest*,
                         node::v1::StopDrillResponse*) override {
    return to_status(drills_.stop());
  }

 private:
  bool hang(uint32_t process, pid_t pid, BurstStep step) {
    Request ask;
    ask.mutable_hang()->set_process(process);
    ask.mutable_hang()->set_pid(static_cast<uint64_t>(pid));
    ask.mutable_hang()->set_step(static_cast<uint32_t>(step));
    return supervisor_.ask(std::move(ask)).ok();
  }

  // Carried out by the node's next start.
  Result<void> order_power_cut(uint64_t seed) {
    if (!config_.power_cut_drills) {
      return invalid("pool.power_cut_drills",
                     "is off on node \"" + config_.name +
                         "\"; accepted: a node whose configuration says pool: {emulate_pmem: true, "
                         "power_cut_drills: true}");
    }
    return EmulatedMedium::order_cut(config_.pool_path, seed);
  }

  grpc::Status kill_node(grpc::ServerWriter<node::v1::DrillProgress>& writer) {
    node::v1::DrillProgress last;
    last.mutable_report()->set_kind("kill-node");
    last.mutable_report()->set_what_failed(
        "the node: supervisor, switch, zygotes, workers and agent are killed with SIGKILL");
    writer.Write(last);
    const auto supervisor = static_cast<pid_t>(arena_.header().supervisor_pid.load());
    std::thread([supervisor] {
      std::this_thread::sleep_for(std::chrono::milliseconds(50));  // the answer leaves first
      kill(supervisor, SIGKILL);  // all others die with it (PR_SET_PDEATHSIG)
    }).detach();
    return grpc::Status::OK;
  }

  const NodeConfig& config_;
  const Arena& arena_;
  const Pool& pool_;
  CounterNames counter_names_;
  SupervisorLink supervisor_;
  Drills drills_;
};

v1::RegisterRequest registration(const NodeConfig& config, const Arena& arena, const Pool& pool) {
  v1::RegisterRequest request;
  request.set_name(config.name);
  request.set_agent_address(config.agent_listen);
  for (const PortConfig& port : config.ports) {
    v1::Port& message = *request.add_ports();
    message.set_name(port.name);
    message.set_role(port.role == Side::kInside ? "inside" : "outside");
    message.set_device(port.device);
    for (const Ipv4Prefix& address : port.addresses) {
      message.add_addresses(format_ipv4(address.address) + "/" + std::to_string(address.length));
    }
  }
  request.set_medium(std::string(medium_name(pool.medium())));
  request.set_medium_survives(std::string(medium_survives(pool.medium())));
  request.set_started_at_s(arena.header().started_at_s);
  request.set_version("0.1.0");
  return request;
}

// Registers, then sends heartbeats; registers again whenever the controller does not know the node.
void keep_registered(const NodeConfig& config, const Arena& arena, const Pool& pool) {
  if (config.controller.empty()) return;
  grpc::ChannelArguments options;  // a controller that comes back is found within a second or two
  options.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 500);
  options.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
  const auto channel =
      grpc::CreateCustomChannel(config.controller, grpc::InsecureChannelCredentials(), options);
  const auto stub = v1::Nodes::NewStub(channel);
  const v1::RegisterRequest request = registration(config, arena, pool);
  for (bool registered = false;; std::this_thread::sleep_for(kHeartbeat)) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(2));
    if (registered) {
      v1::HeartbeatRequest beat;
      beat.set_name(config.name);
      beat.set_started_at_s(request.started_at_s());
      v1::HeartbeatResponse response;
      registered = stub->Heartbeat(&context, beat, &response).ok();
      if (registered) continue;
      grpc::ClientContext again;
      again.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(2));
      v1::RegisterResponse answer;
      registered = stub->Register(&again, request, &answer).ok();
    } else {
      v1::RegisterResponse response;
      registered = stub->Register(&context, request, &response).ok();
    }
  }
}

// Nothing here may change what the others work on.
void make_read_only(const Arena& arena, const Pool& pool) {
  mprotect(arena.base(), arena.header().bytes, PROT_READ);
  mprotect(pool.base(), pool.bytes(), PROT_READ);
}

}  // namespace

[[noreturn]] void agent_main(const NodeConfig& config, const Arena& arena, Pool& pool,
                             int supervisor_socket) {
  make_read_only(arena, pool);
  NodeAgentService service(config, arena, pool, supervisor_socket);
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddListeningPort(config.agent_listen, grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&service);
  builder.SetMaxReceiveMessageSize(64 << 20);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr || port == 0) {
    std::fprintf(stderr,
                 "flowkeep-node: agent.listen: \"%s\" cannot be listened on (in use?); accepted: "
                 "host:port\n",
                 config.agent_listen.c_str());
    _exit(kAgentCannotListen);
  }
  keep_registered(config, arena, pool);
  server->Wait();
  _exit(0);
}

}  // namespace flowkeep
