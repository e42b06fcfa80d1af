#include "controller/ctl/connection.h"

#include <grpcpp/grpcpp.h>

#include "flowkeep/v1/flowkeep.grpc.pb.h"

namespace flowkeep {

struct Connection::Channel {
  std::string address;
  std::chrono::milliseconds timeout;
  std::shared_ptr<grpc::Channel> channel;

  Error unreachable(const std::string& why) const {
    return unavailable(
        "", "controller at " + address + " cannot be reached (" + why +
                "); start it with ./flowkeep up; the dataplane keeps running without it");
  }

  Error error(const grpc::Status& status) const {
    const std::string& text = status.error_message();
    switch (status.error_code()) {
      case grpc::INVALID_ARGUMENT:
      case grpc::FAILED_PRECONDITION:
      case grpc::ALREADY_EXISTS:
        return invalid("", text);
      case grpc::NOT_FOUND:
        return {Error::Kind::kNotFound, "", text};
      case grpc::UNAVAILABLE:
        return unreachable(
            text.find("Connection refused") != std::string::npos ? "connection refused" : text);
      case grpc::DEADLINE_EXCEEDED: {
        const std::string waited =
            "no answer within " + std::to_string(timeout.count() / 1'000) + " s";
        if (channel->GetState(false) != GRPC_CHANNEL_READY) return unreachable(waited);
        return internal_error("", "controller at " + address + ": " + waited + "; see --timeout");
      }
      default:
        return internal_error("", text);
    }
  }

  template <typename Service, typename Request, typename Response>
  Result<Response> call(grpc::Status (Service::Stub::*method)(grpc::ClientContext*, const Request&,
                                                              Response*),
                        const Request& request) const {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + timeout);
    Response response;
    const auto stub = Service::NewStub(channel);
    const grpc::Status status = (stub.get()->*method)(&context, request, &response);
    if (!status.ok()) return error(status);
    return response;
  }
};

Connection::Connection(const std::string& address, std::chrono::milliseconds timeout)
    : channel_(new Channel) {
  channel_->address = address;
  channel_->timeout = timeout;
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetMaxReceiveMessageSize(-1);  // a million flows
  channel_->channel =
      grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
}

Connection::~Connection() = default;

Result<v1::ApplyChainResponse> Connection::apply(const v1::Chain& chain) {
  v1::ApplyChainRequest request;
  *request.mutable_chain() = chain;
  return channel_->call<v1::Chains>(&v1::Chains::Stub::Apply, request);
}
Result<v1::DeleteChainResponse> Connection::remove(const std::string& chain) {
  v1::DeleteChainRequest request;
  request.set_name(chain);
  return channel_->call<v1::Chains>(&v1::Chains::Stub::Delete, request);
}
Result<v1::Chain> Connection::chain(const std::string& name) {
  v1::GetChainRequest request;
  request.set_name(name);
  return channel_->call<v1::Chains>(&v1::Chains::Stub::Get, request);
}
Result<v1::ListChainsResponse> Connection::chains(const std::string& node) {
  v1::ListChainsRequest request;
  request.set_node(node);
  return channel_->call<v1::Chains>(&v1::Chains::Stub::List, request);
}
Result<v1::Node> Connection::node(const std::string& name) {
  v1::GetNodeRequest request;
  request.set_name(name);
  return channel_->call<v1::Nodes>(&v1::Nodes::Stub::Get, request);
}
Result<v1::ListNodesResponse> Connection::nodes() {
  return channel_->call<v1::Nodes>(&v1::Nodes::Stub::List, v1::ListNodesRequest());
}
Result<v1::ListWorkersResponse> Connection::workers(const v1::ListWorkersRequest& request) {
  return channel_->call<v1::Workers>(&v1::Workers::Stub::List, request);
}
Result<v1::FunctionReport> Connection::functions(const v1::FunctionReportRequest& request) {
  return channel_->call<v1::Statistics>(&v1::Statistics::Stub::ReportFunctions, request);
}
Result<v1::ListFlowsResponse> Connection::flows(const v1::ListFlowsRequest& request) {
  return channel_->call<v1::Flows>(&v1::Flows::Stub::List, request);
}
Result<v1::GetStatisticsResponse> Connection::statistics(const v1::GetStatisticsRequest& request) {
  return channel_->call<v1::Statistics>(&v1::Statistics::Stub::Get, request);
}
Result<v1::DrillReport> Connection::drill(
    const v1::RunDrillRequest& request,
    const std::function<void(const v1::DrillProgress&)>& on_progress) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + channel_->timeout);
  const auto stub = v1::Drills::NewStub(channel_->channel);
  const auto reader = stub->RunWithProgress(&context, request);
  v1::DrillProgress progress;
  while (reader->Read(&progress)) {
    if (!progress.has_report()) on_progress(progress);
  }
  const grpc::Status status = reader->Finish();
  if (!status.ok()) return channel_->error(status);
  return std::move(*progress.mutable_report());
}
Result<v1::StopDrillResponse> Connection::stop_drill() {
  return channel_->call<v1::Drills>(&v1::Drills::Stub::Stop, v1::StopDrillRequest());
}
Result<v1::ListEventsResponse> Connection::events(const v1::ListEventsRequest& request) {
  return channel_->call<v1::Events>(&v1::Events::Stub::List, request);
}

Error Connection::watch_events(const v1::WatchEventsRequest& request,
                               const std::function<void(const v1::Event&)>& on_event) {
  grpc::ClientContext context;
  const auto stub = v1::Events::NewStub(channel_->channel);
  const auto reader = stub->Watch(&context, request);
  v1::Event event;
  while (reader->Read(&event)) on_event(event);
  return channel_->error(reader->Finish());
}

}  // namespace flowkeep
