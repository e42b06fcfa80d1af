// The controller as its clients see it: over gRPC, with a fake node behind it.
#include "controller/service.h"

#include <google/protobuf/util/json_util.h>
#include <google/protobuf/util/message_differencer.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <sstream>
#include <thread>

#include "controller/ctl/commands.h"
#include "controller/fake_agent.h"
#include "controller/function_validation.h"
#include "flowkeep/v1/flowkeep.grpc.pb.h"

namespace flowkeep {
namespace {

// What main() puts together. Rounds of the reconciler are the test's to make.
class Controller {
 public:
  Controller(const std::string& store_path, const Clock& clock)
      : store_(Store::open(store_path).value()),
        fleet_(Fleet::open(*store_, changed_, clock).value()),
        deployer_(*store_, *fleet_, changed_, validate_functions, clock),
        reconciler_(*store_, *fleet_, deployer_, changed_),
        server_(
            ApiServer::start({*store_, *fleet_, deployer_, reconciler_, changed_, clock, limits()},
                             "127.0.0.1:0")
                .value()),
        channel_(grpc::CreateChannel(address(), grpc::InsecureChannelCredentials())) {}

  static KillNodeLimits limits() {
    using std::chrono::milliseconds;
    return {milliseconds(5'000), milliseconds(20'000), milliseconds(200), milliseconds(5)};
  }
  std::string address() const { return "127.0.0.1:" + std::to_string(server_->port()); }
  void reconcile() { reconciler_.run_once(); }
  void stop() { server_->stop(); }

  template <typename Service, typename Request, typename Response>
  grpc::Status call(grpc::Status (Service::Stub::*method)(grpc::ClientContext*, const Request&,
                                                          Response*),
                    const Request& request, Response& response) {
    grpc::ClientContext context;
    const auto stub = Service::NewStub(channel_);
    return (stub.get()->*method)(&context, request, &response);
  }
  grpc::Status apply(const v1::Chain& chain, v1::ApplyChainResponse& response) {
    v1::ApplyChainRequest request;
    *request.mutable_chain() = chain;
    return call<v1::Chains>(&v1::Chains::Stub::Apply, request, response);
  }
  v1::Chain get(const std::string& name) {
    v1::GetChainRequest request;
    request.set_name(name);
    v1::Chain chain;
    const grpc::Status status = call<v1::Chains>(&v1::Chains::Stub::Get, request, chain);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return chain;
  }
  std::vector<v1::Event> events() {
    v1::ListEventsResponse response;
    EXPECT_TRUE(call<v1::Events>(&v1::Events::Stub::List, v1::ListEventsRequest(), response).ok());
    return {response.events().begin(), response.events().end()};
  }
  std::shared_ptr<grpc::Channel> channel() { return channel_; }

 private:
  ChangeSignal changed_;
  std::unique_ptr<Store> store_;
  std::unique_ptr<Fleet> fleet_;
  Deployer deployer_;
  Reconciler reconciler_;
  std::unique_ptr<ApiServer> server_;
  std::shared_ptr<grpc::Channel> channel_;
};

v1::Chain edge(uint32_t workers = 1) {
  v1::Chain chain;
  chain.set_name("edge");
  const auto parsed = google::protobuf::util::JsonStringToMessage(
      R"({"inside": "inside", "outside": "outside",
          "functions": [{"type": "nat44", "config": {"external_addresses": ["203.0.113.10"]}}]})",
      chain.mutable_spec());
  EXPECT_TRUE(parsed.ok());
  chain.mutable_spec()->set_workers(workers);
  return chain;
}

node::v1::Flow flow(const std::string& inside, const std::string& external) {
  node::v1::Flow flow;
  flow.set_protocol("tcp");
  flow.set_inside_source(inside);
  flow.set_destination("192.0.2.1:80");
  flow.set_external(external);
  flow.set_phase("established");
  flow.set_last_seen_s(static_cast<int64_t>(Clock().unix_s()));
  return flow;
}

class ServiceTest : public ::testing::Test {
 protected:
  ServiceTest() {
    char folder[] = "/tmp/flowkeep-service-XXXXXX";
    folder_ = ::mkdtemp(folder);
    clock_.steady_s = [this] { return Clock().steady_s() + skipped_s_; };
    restart_controller();
  }
  ~ServiceTest() override {
    controller_.reset();
    std::filesystem::remove_all(folder_);
  }

  void restart_controller() {
    controller_.reset();
    controller_ = std::make_unique<Controller>(folder_ + "/store.db", clock_);
  }
  grpc::Status register_node() {
    v1::RegisterRequest request;
    request.set_name("node-1");
    request.set_agent_address(agent_.address());
    request.set_started_at_s(agent_.started_at_s());
    for (const char* role : {"inside", "outside"}) {
      v1::Port& port = *request.add_ports();
      port.set_name(role);
      port.set_role(role);
    }
    v1::RegisterResponse response;
    return controller_->call<v1::Nodes>(&v1::Nodes::Stub::Register, request, response);
  }
  grpc::Status heartbeat() {
    v1::HeartbeatRequest request;
    request.set_name("node-1");
    request.set_started_at_s(agent_.started_at_s());
    v1::HeartbeatResponse response;
    return controller_->call<v1::Nodes>(&v1::Nodes::Stub::Heartbeat, request, response);
  }
  v1::ApplyChainResponse apply(const v1::Chain& chain) {
    v1::ApplyChainResponse response;
    const grpc::Status status = controller_->apply(chain, response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response;
  }
  grpc::Status refused(const v1::Chain& chain) {
    v1::ApplyChainResponse response;
    return controller_->apply(chain, response);
  }
  // flowkeepctl against this controller.
  int ctl(const std::vector<std::string>& arguments, const std::string& input = "") {
    std::istringstream in(input);
    out_.str("");
    err_.str("");
    return run_flowkeepctl(arguments, controller_->address(), in, out_, err_);
  }
  v1::DrillReport kill_node() {
    v1::RunDrillRequest request;
    request.set_kind("kill-node");
    v1::DrillReport report;
    const grpc::Status status =
        controller_->call<v1::Drills>(&v1::Drills::Stub::Run, request, report);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return report;
  }
  static bool check(const v1::DrillReport& report, const std::string& name) {
    for (const v1::DrillCheck& check : report.checks()) {
      if (check.name() == name) return check.ok();
    }
    ADD_FAILURE() << "no check \"" << name << "\" in " << report.ShortDebugString();
    return false;
  }

  std::string folder_;
  std::atomic<double> skipped_s_ = 0;
  Clock clock_;
  FakeAgent agent_;
  std::unique_ptr<Controller> controller_;
  std::ostringstream out_, err_;
};

TEST_F(ServiceTest, ApplyIsAnsweredAfterTheNodeTookTheChain) {
  ASSERT_TRUE(register_node().ok());
  const auto created = apply(edge());
  EXPECT_EQ(created.outcome(), v1::ApplyChainResponse::CREATED);
  EXPECT_EQ(created.chain().revision(), 1u);
  EXPECT_EQ(created.chain().status().phase(), "Ready");
  EXPECT_EQ(created.chain().status().drops().at("firewall_denied"), 7u);
  const auto running = agent_.chains().at("edge");
  EXPECT_EQ(running.revision(), 1u);
  EXPECT_EQ(running.functions(0).type(), "nat44");
  EXPECT_EQ(running.functions(0)
                .config()
                .fields()
                .at("external_addresses")
                .list_value()
                .values(0)
                .string_value(),
            "203.0.113.10");

  EXPECT_EQ(apply(edge()).outcome(), v1::ApplyChainResponse::UNCHANGED);
  EXPECT_EQ(agent_.apply_calls(), 1);

  const auto changed = apply(edge(2));
  EXPECT_EQ(changed.outcome(), v1::ApplyChainResponse::CONFIGURED);
  EXPECT_EQ(changed.chain().revision(), 2u);
  EXPECT_EQ(agent_.chains().at("edge").revision(), 2u);
  EXPECT_EQ(agent_.chains().at("edge").workers(), 2u);
}

TEST_F(ServiceTest, WhatTheNodeRefusesChangesNothing) {
  ASSERT_TRUE(register_node().ok());
  apply(edge());
  agent_.refuse(grpc::INVALID_ARGUMENT, "spec.functions[0].config.port_range: too small");
  const grpc::Status status = refused(edge(2));
  EXPECT_EQ(status.error_code(), grpc::INVALID_ARGUMENT);
  EXPECT_EQ(status.error_message(), "spec.functions[0].config.port_range: too small");
  v1::RpcStatus rich;
  ASSERT_TRUE(rich.ParseFromString(status.error_details()));
  v1::BadRequest detail;
  ASSERT_TRUE(detail.ParseFromString(rich.details(0).value()));
  EXPECT_EQ(detail.field_violations(0).field(), "spec.functions[0].config.port_range");
  EXPECT_EQ(detail.field_violations(0).description(), "too small");

  EXPECT_EQ(controller_->get("edge").revision(), 1u);
  EXPECT_EQ(controller_->get("edge").spec().workers(), 1u);
  restart_controller();
  EXPECT_EQ(controller_->get("edge").revision(), 1u);
  agent_.refuse(0, "");
  ASSERT_TRUE(heartbeat().ok());
  EXPECT_EQ(apply(edge(2)).chain().revision(), 2u);
}

TEST_F(ServiceTest, BusyNodeIsNoAwayNode) {
  ASSERT_TRUE(register_node().ok());
  agent_.refuse(grpc::FAILED_PRECONDITION,
                "metadata.name: chain \"edge\" is being changed; try again");
  const grpc::Status status = refused(edge());
  EXPECT_FALSE(status.ok());
  EXPECT_EQ(status.error_message(), "metadata.name: chain \"edge\" is being changed; try again");
  EXPECT_EQ(ctl({"get", "chains"}), kExitOk);
  EXPECT_EQ(out_.str(), "No chains. Deploy one with: flowkeepctl apply -f FILE\n");
}

TEST_F(ServiceTest, FailureOfTheNodeIsReportedAndTakenBack) {
  ASSERT_TRUE(register_node().ok());
  apply(edge());
  agent_.refuse(grpc::INTERNAL, "the zygote died");
  EXPECT_EQ(refused(edge(2)).error_code(), grpc::INTERNAL);
  EXPECT_EQ(controller_->get("edge").revision(), 1u);
  // It may have come to run the new revision all the same: the stored one is brought back.
  agent_.refuse(0, "");
  agent_.set_chain("edge", 2);
  controller_->reconcile();
  EXPECT_EQ(agent_.chains().at("edge").revision(), 1u);
  // The number that the node may have seen is not used for anything else.
  EXPECT_EQ(apply(edge(3)).chain().revision(), 3u);
}

TEST_F(ServiceTest, WrongInputIsRefusedWithItsFieldAndChangesNothing) {
  ASSERT_TRUE(register_node().ok());
  apply(edge());
  v1::Chain wrong = edge(2);
  wrong.mutable_spec()->set_inside("foo");
  EXPECT_EQ(refused(wrong).error_code(), grpc::INVALID_ARGUMENT);
  EXPECT_EQ(refused(wrong).error_message(),
            "spec.inside: port \"foo\" does not exist on node \"node-1\"; it has: inside, outside");
  v1::Chain second = edge();
  second.set_name("second");
  EXPECT_EQ(refused(second).error_message(),
            "spec.inside: port \"inside\" of node \"node-1\" is already used by chain \"edge\"");
  v1::Chain outdated = edge(2);
  outdated.set_revision(7);
  EXPECT_EQ(refused(outdated).error_code(), grpc::FAILED_PRECONDITION);
  EXPECT_EQ(agent_.apply_calls(), 1);
  EXPECT_EQ(controller_->get("edge").revision(), 1u);
}

TEST_F(ServiceTest, CreateAndUpdateMindWhetherTheChainExists) {
  ASSERT_TRUE(register_node().ok());
  v1::Chain answer;
  v1::UpdateChainRequest update;
  *update.mutable_chain() = edge(2);
  EXPECT_EQ(controller_->call<v1::Chains>(&v1::Chains::Stub::Update, update, answer).error_code(),
            grpc::NOT_FOUND);
  v1::CreateChainRequest create;
  *create.mutable_chain() = edge();
  EXPECT_TRUE(controller_->call<v1::Chains>(&v1::Chains::Stub::Create, create, answer).ok());
  EXPECT_EQ(controller_->call<v1::Chains>(&v1::Chains::Stub::Create, create, answer).error_code(),
            grpc::ALREADY_EXISTS);
  EXPECT_TRUE(controller_->call<v1::Chains>(&v1::Chains::Stub::Update, update, answer).ok());
  EXPECT_EQ(answer.revision(), 2u);
}

TEST_F(ServiceTest, NoNodeIsAFailedPrecondition) {
  const grpc::Status status = refused(edge());
  EXPECT_EQ(status.error_code(), grpc::FAILED_PRECONDITION);
  EXPECT_EQ(status.error_message(),
            "spec.node: no node is registered with this controller; start a node first");
}

TEST_F(ServiceTest, ChainOfANodeThatIsAwayIsAppliedOnItsReturn) {
  ASSERT_TRUE(register_node().ok());
  agent_.stop();
  const auto created = apply(edge());  // found out by the call, ahead of the lease
  EXPECT_EQ(created.outcome(), v1::ApplyChainResponse::CREATED);
  EXPECT_FALSE(created.chain().status().ready());
  skipped_s_ = skipped_s_ + 10;
  controller_->reconcile();
  EXPECT_EQ(controller_->get("edge").status().phase(), "Pending");
  EXPECT_EQ(controller_->get("edge").status().message(),
            "node node-1 is away; applied when it returns");
  EXPECT_EQ(controller_->events().back().kind(), "node_lost");

  agent_.start();
  EXPECT_EQ(heartbeat().error_code(),
            grpc::NOT_FOUND);  // another start: its ports may have changed
  ASSERT_TRUE(register_node().ok());
  controller_->reconcile();
  EXPECT_EQ(agent_.chains().at("edge").revision(), 1u);
  EXPECT_EQ(controller_->get("edge").status().phase(), "Ready");
}

TEST_F(ServiceTest, NodeThatRefusesAStoredChainIsAskedAgainLater) {
  ASSERT_TRUE(register_node().ok());
  agent_.stop();
  apply(edge());
  agent_.start();
  agent_.refuse(grpc::INVALID_ARGUMENT, "spec.inside: port gone");
  ASSERT_TRUE(register_node().ok());
  controller_->reconcile();
  controller_->reconcile();
  EXPECT_EQ(agent_.apply_calls(), 1);  // not in every round
  EXPECT_EQ(controller_->get("edge").status().phase(), "Failed");
  EXPECT_EQ(controller_->get("edge").status().message(), "spec.inside: port gone");
  EXPECT_NE(controller_->events().back().kind(), "chain_failed");
  skipped_s_ = skipped_s_ + 2;
  controller_->reconcile();
  EXPECT_EQ(agent_.apply_calls(), 2);
  EXPECT_EQ(controller_->events().back().kind(), "chain_failed");
  agent_.refuse(0, "");
  ASSERT_TRUE(heartbeat().ok());
  skipped_s_ = skipped_s_ + 2;
  controller_->reconcile();
  EXPECT_EQ(controller_->get("edge").status().phase(), "Ready");
}

// A node that restarts brings its chains up by itself, and is busy with that when the controller
// comes.
TEST_F(ServiceTest, ChainThatTheNodeBroughtUpByItselfIsReady) {
  ASSERT_TRUE(register_node().ok());
  agent_.stop();
  apply(edge());
  agent_.start();
  agent_.refuse(grpc::FAILED_PRECONDITION,
                "metadata.name: chain \"edge\" is being changed; try again");
  ASSERT_TRUE(register_node().ok());
  controller_->reconcile();
  EXPECT_EQ(controller_->get("edge").status().phase(), "Failed");
  agent_.set_chain("edge", 1);
  controller_->reconcile();
  EXPECT_EQ(agent_.apply_calls(), 1);
  EXPECT_EQ(controller_->get("edge").status().phase(), "Ready");
}

TEST_F(ServiceTest, DeletedChainLeavesTheNode) {
  ASSERT_TRUE(register_node().ok());
  apply(edge());
  EXPECT_EQ(ctl({"delete", "chain", "edge"}), kExitOk);
  EXPECT_EQ(out_.str(), "chain/edge deleted\n");
  EXPECT_TRUE(agent_.chains().empty());
  EXPECT_EQ(ctl({"delete", "chain", "edge"}), kExitNotFound);
  EXPECT_EQ(apply(edge()).chain().revision(), 2u);
}

TEST_F(ServiceTest, ChainDeletedWhileTheNodeIsAwayLeavesItOnItsReturn) {
  ASSERT_TRUE(register_node().ok());
  apply(edge());
  agent_.stop();
  EXPECT_EQ(ctl({"delete", "chain", "edge"}), kExitOk);
  EXPECT_EQ(out_.str(),
            "chain/edge deleted; node node-1 is away; it removes the chain when it returns\n");
  agent_.start();
  ASSERT_TRUE(register_node().ok());
  EXPECT_EQ(agent_.chains().count("edge"), 1u);
  controller_->reconcile();
  EXPECT_TRUE(agent_.chains().empty());
}

// An empty store must not tear down what runs: nobody asked for it.
TEST_F(ServiceTest, ChainThatTheStoreNeverKnewIsLeftAlone) {
  agent_.set_chain("old", 5);
  ASSERT_TRUE(register_node().ok());
  controller_->reconcile();
  EXPECT_EQ(agent_.chains().count("old"), 1u);
  EXPECT_EQ(ctl({"delete", "chain", "old"}), kExitOk);
  EXPECT_TRUE(agent_.chains().empty());
}

TEST_F(ServiceTest, EverythingIsThereAfterARestart) {
  ASSERT_TRUE(register_node().ok());
  apply(edge(2));
  agent_.add_event(1, "failover", "edge");
  controller_->reconcile();
  restart_controller();
  EXPECT_EQ(controller_->get("edge").spec().workers(), 2u);
  controller_->reconcile();  // finds the node without waiting for a heartbeat
  EXPECT_EQ(controller_->get("edge").status().phase(), "Ready");
  EXPECT_EQ(agent_.apply_calls(), 1);
  int failovers = 0;
  for (const v1::Event& event : controller_->events())
    failovers += event.kind() == "failover" ? 1 : 0;
  EXPECT_EQ(failovers, 1);
  ASSERT_TRUE(heartbeat().ok());
}

TEST_F(ServiceTest, WatchesSendChangesAndEndWithTheServer) {
  ASSERT_TRUE(register_node().ok());
  grpc::ClientContext context;
  const auto stub = v1::Chains::NewStub(controller_->channel());
  const auto reader = stub->Watch(&context, v1::WatchChainsRequest());
  apply(edge());
  v1::WatchChainsResponse change;
  do {
    ASSERT_TRUE(reader->Read(&change));
  } while (!change.chain().status().ready());
  EXPECT_EQ(change.chain().name(), "edge");
  EXPECT_EQ(ctl({"delete", "chain", "edge"}), kExitOk);
  do {
    ASSERT_TRUE(reader->Read(&change));
  } while (!change.deleted());
  controller_->stop();
  while (reader->Read(&change)) {
  }
  EXPECT_EQ(reader->Finish().error_code(), grpc::UNAVAILABLE);
}

TEST_F(ServiceTest, EventWatchGoesOnFromTheSequence) {
  ASSERT_TRUE(register_node().ok());
  grpc::ClientContext context;
  v1::WatchEventsRequest request;
  request.set_after(1);
  const auto stub = v1::Events::NewStub(controller_->channel());
  const auto reader = stub->Watch(&context, request);
  apply(edge());
  v1::Event event;
  ASSERT_TRUE(reader->Read(&event));
  EXPECT_EQ(event.kind(), "chain_created");
  EXPECT_EQ(event.chain(), "edge");
  context.TryCancel();
  EXPECT_FALSE(reader->Read(&event));
}

// ---- Drills
// -----------------------------------------------------------------------------------------

TEST_F(ServiceTest, WorkerDrillsAreTheNodes) {
  ASSERT_TRUE(register_node().ok());
  apply(edge());
  node::v1::DrillReport report;
  report.set_kind("kill-worker");
  report.add_checks()->set_ok(true);
  agent_.set_drill_report(report);
  EXPECT_EQ(ctl({"drill", "kill-worker", "--count", "3"}), kExitOk);
  EXPECT_EQ(agent_.last_drill().chain(), "edge");
  EXPECT_EQ(agent_.last_drill().count(), 3u);
  EXPECT_EQ(agent_.last_drill().interval_ms(), 100u);
  report.add_checks()->set_name("packets lost");
  agent_.set_drill_report(report);
  EXPECT_EQ(ctl({"drill", "hang-worker"}), kExitCheckFailed);
  EXPECT_NE(out_.str().find("FAILED"), std::string::npos);
  EXPECT_EQ(ctl({"drill", "unplug"}), kExitRefused);
}

TEST_F(ServiceTest, AStormIsOfAllChainsOfTheNode) {
  ASSERT_TRUE(register_node().ok());
  apply(edge());
  node::v1::DrillReport report;
  report.set_kind("storm");
  report.set_kills(7);
  agent_.set_drill_report(report);
  EXPECT_EQ(ctl({"drill", "storm", "--kills", "7", "--seed", "42", "--rate", "50", "--victims",
                 "worker,standby"}),
            kExitOk);
  EXPECT_EQ(agent_.last_drill().chain(), "");
  EXPECT_EQ(agent_.last_drill().count(), 7u);
  EXPECT_EQ(agent_.last_drill().seed(), 42u);
  EXPECT_EQ(agent_.last_drill().interval_us(), 20'000u);
  ASSERT_EQ(agent_.last_drill().victims_size(), 2);
  EXPECT_EQ(agent_.last_drill().victims(1), "standby");
  EXPECT_NE(err_.str().find("seed 42\n"), std::string::npos);
  EXPECT_EQ(ctl({"drill", "storm", "--chain", "edge"}), kExitOk);
  EXPECT_EQ(agent_.last_drill().chain(), "edge");
  EXPECT_NE(agent_.last_drill().seed(), 0u);  // drawn, and printed
  EXPECT_NE(err_.str().find("seed " + std::to_string(agent_.last_drill().seed())),
            std::string::npos);
}

TEST_F(ServiceTest, ADrillCanBeEndedAndStillReports) {
  ASSERT_TRUE(register_node().ok());
  apply(edge());
  v1::StopDrillResponse stopped;
  EXPECT_EQ(controller_->call<v1::Drills>(&v1::Drills::Stub::Stop, v1::StopDrillRequest(), stopped)
                .error_code(),
            grpc::NOT_FOUND);
  agent_.let_drills_wait();
  std::thread stopper([&] {
    while (!controller_->call<v1::Drills>(&v1::Drills::Stub::Stop, v1::StopDrillRequest(), stopped)
                .ok())
      std::this_thread::yield();
  });
  v1::RunDrillRequest request;
  request.set_kind("storm");
  v1::DrillReport report;
  EXPECT_TRUE(controller_->call<v1::Drills>(&v1::Drills::Stub::Run, request, report).ok());
  stopper.join();
  EXPECT_TRUE(report.stopped());
}

TEST_F(ServiceTest, KillNodeComparesTheFlows) {
  ASSERT_TRUE(register_node().ok());
  apply(edge());
  agent_.set_flows(
      {flow("10.0.0.2:1000", "203.0.113.10:2000"), flow("10.0.0.2:1001", "203.0.113.10:2001")});
  agent_.on_kill([&] {
    agent_.stop();
    agent_.start();
    EXPECT_TRUE(register_node().ok());
  });
  const v1::DrillReport report = kill_node();
  agent_.join_kill();
  EXPECT_EQ(report.flows_before(), 2u);
  EXPECT_EQ(report.flows_resumed(), 2u);
  EXPECT_TRUE(report.state_verified());
  EXPECT_GE(report.detect_us_p50(), 0);
  EXPECT_GE(report.first_packet_us_p50(), 0);
  EXPECT_NE(report.injections(0).victim_pid(), report.injections(0).replacement_pid());
  EXPECT_EQ(report.medium(), "tmpfs");
  EXPECT_TRUE(report.emulated());
  EXPECT_EQ(report.detect_us().count(), 1u);
  EXPECT_EQ(report.first_packet_us().max(), report.injections(0).first_packet_us());
  for (const v1::DrillCheck& check : report.checks())
    EXPECT_TRUE(check.ok()) << check.ShortDebugString();
}

TEST_F(ServiceTest, KillNodeFindsAFlowThatChangedOrIsMissing) {
  ASSERT_TRUE(register_node().ok());
  apply(edge());
  agent_.set_flows({flow("10.0.0.2:1000", "203.0.113.10:2000"),
                    flow("10.0.0.2:1001", "203.0.113.10:2001"),
                    flow("10.0.0.2:1002", "203.0.113.10:2002")});
  agent_.set_forwarded_since_start(false);
  agent_.on_kill([&] {
    agent_.stop();
    agent_.set_flows(
        {flow("10.0.0.2:1000", "203.0.113.10:2000"), flow("10.0.0.2:1001", "203.0.113.10:9999")});
    agent_.start();
    EXPECT_TRUE(register_node().ok());
  });
  const v1::DrillReport report = kill_node();
  agent_.join_kill();
  EXPECT_EQ(report.flows_before(), 3u);
  EXPECT_EQ(report.flows_resumed(), 1u);
  EXPECT_FALSE(report.state_verified());
  EXPECT_FALSE(check(report, "flows resumed"));
  EXPECT_TRUE(check(report, "node back"));
  EXPECT_EQ(report.first_packet_us_p50(), -1);
}

TEST_F(ServiceTest, KillNodeOfANodeThatIsAwayDoesNotBegin) {
  ASSERT_TRUE(register_node().ok());
  skipped_s_ = skipped_s_ + 10;
  EXPECT_EQ(ctl({"drill", "kill-node"}), kExitRefused);
  EXPECT_EQ(err_.str(), "flowkeepctl: node: node \"node-1\" is away\n");
}

TEST(KillNode, FlowMayBeGoneOnlyAfterItsTimeout) {
  v1::Flow flow;
  flow.set_protocol("udp");
  flow.set_phase("established");
  flow.set_last_seen_s(1'000);
  EXPECT_FALSE(may_have_ended(flow, 1'299));
  EXPECT_TRUE(may_have_ended(flow, 1'300));
  flow.set_protocol("tcp");
  EXPECT_FALSE(may_have_ended(flow, 8'000));
  flow.set_phase("closed");
  EXPECT_TRUE(may_have_ended(flow, 1'240));
}

// ---- flowkeepctl
// ------------------------------------------------------------------------------------

constexpr const char* kEdgeYaml = R"(kind: Chain
metadata: {name: edge}
spec:
  inside: inside
  outside: outside
  functions:
    - type: firewall
      config:
        rules:
          - {name: web, action: accept, protocol: tcp, destination_ports: ["80"]}
    - type: nat44
      config: {external_addresses: [203.0.113.10]}
)";

TEST_F(ServiceTest, CtlAppliesAndShowsAChain) {
  ASSERT_TRUE(register_node().ok());
  EXPECT_EQ(ctl({"apply", "-f", "-"}, kEdgeYaml), kExitOk) << err_.str();
  EXPECT_EQ(out_.str(), "chain/edge created (revision 1)\n");
  EXPECT_EQ(ctl({"apply", "-f", "-"}, kEdgeYaml), kExitOk);
  EXPECT_EQ(out_.str(), "chain/edge unchanged (revision 1)\n");
  agent_.set_flows({flow("10.0.0.2:1000", "203.0.113.10:2000")});
  const std::vector<std::pair<std::vector<std::string>, std::string>> kShown = {
      {{"get", "chains"}, "firewall,nat44"},
      {{"get", "nodes"}, "alive"},
      {{"get", "workers"}, "4242"},
      {{"get", "events"}, "chain_created"},
      {{"describe", "chain", "edge"}, "Ready"},
      {{"describe", "node", "node-1"}, "alive"},
      {{"flows", "edge"}, "203.0.113.10:2000"},
      {{"stats"}, "firewall_denied"},
      {{"top", "--once", "--interval", "0.05"}, "edge"},
      {{"events"}, "chain_created"},
  };
  for (auto [arguments, text] : kShown) {
    EXPECT_EQ(ctl(arguments), kExitOk) << err_.str();
    EXPECT_NE(out_.str().find(text), std::string::npos) << arguments[0] << ": " << out_.str();
    arguments.insert(arguments.end(), {"-o", "json"});
    EXPECT_EQ(ctl(arguments), kExitOk) << err_.str();
    google::protobuf::Struct parsed;
    EXPECT_TRUE(google::protobuf::util::JsonStringToMessage(out_.str(), &parsed).ok())
        << out_.str();
  }
  EXPECT_EQ(ctl({"describe", "chain", "none"}), kExitNotFound);
  EXPECT_EQ(err_.str(), "flowkeepctl: there is no chain \"none\"\n");
}

TEST_F(ServiceTest, CtlNamesTheLineOfWhatTheControllerRefuses) {
  ASSERT_TRUE(register_node().ok());
  std::string yaml = kEdgeYaml;
  yaml.replace(yaml.find("protocol: tcp"), 13, "protocol: quic");
  EXPECT_EQ(ctl({"apply", "-f", "-"}, yaml), kExitRefused);
  EXPECT_TRUE(err_.str().starts_with(
      "flowkeepctl: standard input:10: spec.functions[0].config.rules[0].protocol: "))
      << err_.str();
  EXPECT_EQ(agent_.apply_calls(), 0);
}

}  // namespace
}  // namespace flowkeep
