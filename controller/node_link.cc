#include "controller/node_link.h"

#include <grpcpp/grpcpp.h>

#include <cassert>
#include <optional>

#include "dataplane/agent.grpc.pb.h"

namespace flowkeep {
namespace {

namespace node_api = flowkeep::node::v1;

constexpr NodeLink::Milliseconds kStopDeadline{5'000};

// Between messages of the two APIs that have the same fields (node_link_test.cc holds them to it):
// by way of their bytes.
template <typename To>
To same_fields(const google::protobuf::Message& from) {
  To to;
  const bool parsed = to.ParseFromString(from.SerializeAsString());
  assert(parsed);
  (void)parsed;
  return to;
}

std::shared_ptr<grpc::Channel> connect(const std::string& address) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL,
                   1);  // a node that returns starts without old back-off
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1'000);
  arguments.SetMaxReceiveMessageSize(-1);  // a million flows
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
}

}  // namespace

struct NodeLink::Connection {
  std::string address;
  std::shared_ptr<grpc::Channel> channel;
  std::unique_ptr<node_api::NodeAgent::Stub> stub;

  Error error(const grpc::Status& status, Milliseconds deadline) const {
    switch (status.error_code()) {
      case grpc::INVALID_ARGUMENT:
      case grpc::FAILED_PRECONDITION:
      case grpc::RESOURCE_EXHAUSTED:
      case grpc::ALREADY_EXISTS:
        return {Error::Kind::kInvalid, "", status.error_message()};
      case grpc::NOT_FOUND:
        return {Error::Kind::kNotFound, "", status.error_message()};
      case grpc::UNAVAILABLE:
        return unavailable("", "the node's agent at " + address + " cannot be reached");
      case grpc::DEADLINE_EXCEEDED:
        return internal_error("", "the node's agent at " + address + " did not answer within " +
                                      std::to_string(deadline.count()) + " ms");
      default:
        return internal_error(
            "", "the node's agent at " + address + " failed: " + status.error_message());
    }
  }

  template <typename Response, typename Request>
  Result<Response> call(grpc::Status (node_api::NodeAgent::Stub::*method)(grpc::ClientContext*,
                                                                          const Request&,
                                                                          Response*),
                        const Request& request, Milliseconds deadline) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + deadline);
    Response response;
    const grpc::Status status = (stub.get()->*method)(&context, request, &response);
    if (!status.ok()) return error(status, deadline);
    return response;
  }
};

NodeLink::NodeLink(const std::string& agent_address) : connection_(new Connection) {
  connection_->address = agent_address;
  connection_->channel = connect(agent_address);
  connection_->stub = node_api::NodeAgent::NewStub(connection_->channel);
}

NodeLink::~NodeLink() = default;

Result<void> NodeLink::apply(const StoredChain& chain, Milliseconds deadline) {
  node_api::ApplyChainRequest request;
  node_api::ChainRevision& revision = *request.mutable_revision();
  revision.set_chain(chain.name);
  revision.set_revision(chain.revision);
  revision.set_inside(chain.spec.inside());
  revision.set_outside(chain.spec.outside());
  revision.set_workers(chain.spec.workers());
  revision.set_buckets(chain.spec.buckets());
  if (chain.spec.has_timeouts())
    *revision.mutable_timeouts() = same_fields<node_api::Timeouts>(chain.spec.timeouts());
  for (const v1::Function& function : chain.spec.functions()) {
    node_api::Function& added = *revision.add_functions();
    added.set_type(function.type());
    *added.mutable_config() = function.config();
  }
  const auto applied = connection_->call(&node_api::NodeAgent::Stub::ApplyChain, request, deadline);
  if (!applied) return applied.error();
  return {};
}

Result<void> NodeLink::remove(const std::string& chain, Milliseconds deadline) {
  node_api::RemoveChainRequest request;
  request.set_chain(chain);
  const auto removed =
      connection_->call(&node_api::NodeAgent::Stub::RemoveChain, request, deadline);
  if (!removed && removed.error().kind != Error::Kind::kNotFound) return removed.error();
  return {};
}

Result<v1::NodeStatus> NodeLink::status(Milliseconds deadline) {
  const auto status = connection_->call(&node_api::NodeAgent::Stub::GetStatus,
                                        node_api::GetStatusRequest(), deadline);
  if (!status) return status.error();
  return same_fields<v1::NodeStatus>(*status);
}

Result<std::vector<NodeEvent>> NodeLink::events(uint64_t after, uint32_t limit,
                                                Milliseconds deadline) {
  node_api::ListEventsRequest request;
  request.set_after(after);
  request.set_limit(limit);
  const auto listed = connection_->call(&node_api::NodeAgent::Stub::ListEvents, request, deadline);
  if (!listed) return listed.error();
  std::vector<NodeEvent> events;
  for (const node_api::Event& reported : listed->events()) {
    NodeEvent event;
    event.sequence = reported.sequence();
    event.event.set_at_s(reported.at_s());
    event.event.set_kind(reported.kind());
    event.event.set_chain(reported.chain());
    event.event.set_message(reported.message());
    events.push_back(std::move(event));
  }
  return events;
}

Result<v1::FunctionReport> NodeLink::functions(const v1::FunctionReportRequest& request,
                                               Milliseconds deadline) {
  const auto report =
      connection_->call(&node_api::NodeAgent::Stub::ReportFunctions,
                        same_fields<node_api::FunctionReportRequest>(request), deadline);
  if (!report) return report.error();
  return same_fields<v1::FunctionReport>(*report);
}

Result<v1::ListFlowsResponse> NodeLink::flows(const v1::ListFlowsRequest& request,
                                              Milliseconds deadline) {
  const auto listed = connection_->call(&node_api::NodeAgent::Stub::ListFlows,
                                        same_fields<node_api::ListFlowsRequest>(request), deadline);
  if (!listed) return listed.error();
  return same_fields<v1::ListFlowsResponse>(*listed);
}

Result<v1::DrillReport> NodeLink::run_drill(const v1::RunDrillRequest& request,
                                            Milliseconds deadline,
                                            const OnDrillProgress& on_progress) {
  node_api::RunDrillRequest asked;
  asked.set_kind(request.kind());
  asked.set_chain(request.chain());
  asked.set_count(request.count());
  asked.set_at_step(request.at_step());
  asked.set_interval_ms(request.interval_ms());
  asked.set_seed(request.seed());
  asked.set_interval_us(request.interval_us());
  *asked.mutable_victims() = request.victims();
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + deadline);
  const auto reader = connection_->stub->RunDrill(&context, asked);
  node_api::DrillProgress progress;
  std::optional<v1::DrillReport> report;
  bool wanted = true;
  while (reader->Read(&progress)) {
    if (progress.has_report()) {
      report = same_fields<v1::DrillReport>(progress.report());
    } else if (on_progress && wanted && !on_progress(same_fields<v1::DrillProgress>(progress))) {
      wanted = false;
      (void)stop_drill(kStopDeadline);  // refused: it has just ended
    }
  }
  const grpc::Status status = reader->Finish();
  if (!status.ok()) return connection_->error(status, deadline);
  if (!report) return internal_error("", "the node's agent ended the drill without a report");
  return std::move(*report);
}

Result<void> NodeLink::stop_drill(Milliseconds deadline) {
  const auto stopped = connection_->call(&node_api::NodeAgent::Stub::StopDrill,
                                         node_api::StopDrillRequest(), deadline);
  if (!stopped) return stopped.error();
  return {};
}

bool NodeLink::wait_disconnected(Milliseconds deadline) {
  const auto until = std::chrono::system_clock::now() + deadline;
  auto state = connection_->channel->GetState(false);
  while (state == GRPC_CHANNEL_READY) {
    if (!connection_->channel->WaitForStateChange(state, until)) return false;
    state = connection_->channel->GetState(false);
  }
  return true;
}

}  // namespace flowkeep
