// ApiServer: the gRPC face of the controller (controller/api), with reflection and the health
// service. Holds no state of its own; errors become gRPC statuses here and nowhere else. Threads:
// handlers run on gRPC's threads, so everything below it is thread-safe.
#pragma once

#include <memory>
#include <string>

#include "controller/change_signal.h"
#include "controller/clock.h"
#include "controller/deployer.h"
#include "controller/fleet.h"
#include "controller/kill_node_drill.h"
#include "controller/reconciler.h"
#include "controller/store.h"

namespace flowkeep {

struct ApiParts {
  Store& store;
  Fleet& fleet;
  Deployer& deployer;
  Reconciler& reconciler;
  ChangeSignal& changed;
  Clock clock;
  KillNodeLimits kill_node_limits;
};

class ApiServer {
 public:
  static constexpr int kMaxWatches = 32;  // each holds a thread

  // "host:port"; port 0 takes a free one.
  static Result<std::unique_ptr<ApiServer>> start(const ApiParts& parts, const std::string& listen);
  ~ApiServer();
  ApiServer(const ApiServer&) = delete;
  ApiServer& operator=(const ApiServer&) = delete;

  int port() const;
  // Ends the watches, lets calls in progress finish for a moment, then returns.
  void stop();

 private:
  struct Running;
  explicit ApiServer(std::unique_ptr<Running> running);
  std::unique_ptr<Running> running_;
};

}  // namespace flowkeep
