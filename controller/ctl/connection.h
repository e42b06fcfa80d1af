// Connection: the command line's calls to a controller.
//
// Errors: kUnavailable means that no controller answers, and says what to do; kInvalid covers every
// refusal (INVALID_ARGUMENT, FAILED_PRECONDITION, ALREADY_EXISTS), kNotFound is NOT_FOUND,
// kInternal the rest.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "flowkeep/v1/flowkeep.pb.h"
#include "state/result.h"

namespace flowkeep {

class Connection {
 public:
  Connection(const std::string& address, std::chrono::milliseconds timeout);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  Result<v1::ApplyChainResponse> apply(const v1::Chain& chain);
  Result<v1::DeleteChainResponse> remove(const std::string& chain);
  Result<v1::Chain> chain(const std::string& name);
  Result<v1::ListChainsResponse> chains(const std::string& node);
  Result<v1::Node> node(const std::string& name);
  Result<v1::ListNodesResponse> nodes();
  Result<v1::ListWorkersResponse> workers(const v1::ListWorkersRequest& request);
  Result<v1::FunctionReport> functions(const v1::FunctionReportRequest& request);
  Result<v1::ListFlowsResponse> flows(const v1::ListFlowsRequest& request);
  Result<v1::GetStatisticsResponse> statistics(const v1::GetStatisticsRequest& request);
  // Told of the progress until the drill has ended.
  Result<v1::DrillReport> drill(const v1::RunDrillRequest& request,
                                const std::function<void(const v1::DrillProgress&)>& on_progress);
  Result<v1::StopDrillResponse> stop_drill();
  Result<v1::ListEventsResponse> events(const v1::ListEventsRequest& request);
  // Until the controller ends the stream; always an error. No timeout.
  Error watch_events(const v1::WatchEventsRequest& request,
                     const std::function<void(const v1::Event&)>& on_event);

 private:
  struct Channel;
  std::unique_ptr<Channel> channel_;
};

}  // namespace flowkeep
