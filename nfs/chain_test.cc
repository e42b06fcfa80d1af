#include "nfs/chain.h"

#include <gtest/gtest.h>

#include "nfs/chain_harness.h"

namespace flowkeep {
namespace {

constexpr char kInside[] = "10.0.0.2";
constexpr char kRemote[] = "198.51.100.7";

// The chain's own phases: without a look at sequence numbers.
FunctionSpec firewall(const std::string& rules) {
  return {"firewall", R"({"tcp_tracking":"off","rules":[)" + rules + "]}"};
}
const FunctionSpec kOpenFirewall = firewall(R"({"name":"all","action":"accept"})");
const FunctionSpec kNat{"nat44", R"({"external_addresses":["203.0.113.10"]})"};
const FunctionSpec kFromInsideOnly =
    firewall(R"({"name":"out","action":"accept","direction":"from_inside"})");

ChainSpec chain(std::vector<FunctionSpec> functions, uint32_t revision = 1) {
  return {"test", revision, std::move(functions)};
}

// ---- Building.

TEST(ChainBuild, SteersByTheCoarsestScope) {
  EXPECT_EQ(must_build(chain({kOpenFirewall}))->steering_scope(), Scope::kFlow);
  const auto both = must_build(chain({kOpenFirewall, kNat}));
  EXPECT_EQ(both->steering_scope(), Scope::kEndpoint);
  ASSERT_EQ(both->external_addresses().size(), 1U);
  EXPECT_EQ(both->external_addresses()[0], *parse_ipv4_address("203.0.113.10"));
}

struct Refusal {
  ChainSpec spec;
  const char* error;
};

TEST(ChainBuild, ErrorsNameFieldValueAndWhatIsAccepted) {
  const auto rule = [](const std::string& fields) {
    return chain(
        {kOpenFirewall, firewall(R"({"name":"a","action":"accept"},{"name":"b","action":"drop",)" +
                                 fields + "}")});
  };
  const auto nat = [](const char* config) { return chain({{"nat44", config}}); };
  const Refusal refusals[] = {
      {chain({}), "spec.functions: is empty"},
      {chain({{"foo", ""}}),
       "spec.functions[0].type: unknown function \"foo\"; accepted: dscp, firewall, nat44"},
      {chain({kNat, kOpenFirewall}), "spec.functions[0].type: \"nat44\" translates"},
      {chain({kNat, kNat}), "spec.functions[0].type: \"nat44\" translates"},
      {rule(R"("source":["10.0.0.0/8","10.0.0.0/33"])"),
       "spec.functions[1].config.rules[1].source[1]: \"10.0.0.0/33\" is no IP prefix; "
       "accepted: "},
      {rule(R"("destination":["10.0.0.1/8"])"),
       "spec.functions[1].config.rules[1].destination[0]: \"10.0.0.1/8\" is no"},
      {rule(R"("protocol":"dccp")"),
       "spec.functions[1].config.rules[1].protocol: unknown protocol \"dccp\"; accepted: tcp"},
      {rule(R"("direction":"up")"),
       "spec.functions[1].config.rules[1].direction: unknown direction \"up\"; accepted: "
       "from_inside"},
      {rule(R"("protocol":"tcp","source_ports":["90-80"])"),
       "spec.functions[1].config.rules[1].source_ports[0]: \"90-80\" is no port"},
      {rule(R"("protocol":"udp","destination_ports":["65536"])"),
       "spec.functions[1].config.rules[1].destination_ports[0]: \"65536\" is no port"},
      {rule(R"("protocol":"icmp","destination_ports":["1"])"),
       "spec.functions[1].config.rules[1].destination_ports: ports need a protocol"},
      {rule(R"("sorce":["10.0.0.0/8"])"),
       "spec.functions[1].config.rules[1].sorce: unknown field \"sorce\""},
      {rule(R"("source":7)"), "spec.functions[1].config.rules[1].source"},
      {chain({{"firewall", R"({"rule":[]})"}}),
       "spec.functions[0].config.rule: unknown field \"rule\""},
      {chain({{"firewall", "{"}}), "spec.functions[0].config: is no valid JSON"},
      {chain({firewall(R"({"name":"a","action":"permit"})")}),
       "spec.functions[0].config.rules[0].action: unknown action \"permit\"; accepted: accept, "
       "drop"},
      {chain({firewall(R"({"action":"drop"})")}),
       "spec.functions[0].config.rules[0].name: is missing"},
      {chain({firewall(R"({"name":"a","action":"drop"},{"name":"a","action":"drop"})")}),
       "spec.functions[0].config.rules[1].name: \"a\" names an earlier rule"},
      {nat("{}"),
       "spec.functions[0].config.external_addresses: 0 addresses given; accepted: 1 to 8"},
      {nat(R"({"external_addresses":["1.2.3"]})"),
       "spec.functions[0].config.external_addresses[0]: \"1.2.3\" is no IPv4 address"},
      {nat(R"({"external_addresses":["224.0.0.1"]})"),
       "spec.functions[0].config.external_addresses[0]: \"224.0.0.1\" is no unicast"},
      {nat(R"({"external_addresses":["1.2.3.4","1.2.3.4"]})"),
       "spec.functions[0].config.external_addresses[1]: \"1.2.3.4\" is given twice"},
      {nat(R"({"external_addresses":["1.2.3.4"],"port_range":{"first":80,"last":90}})"),
       "spec.functions[0].config.port_range: 80 to 90 is no range"},
      {nat(R"({"external_addresses":["1.2.3.4"],"port_range":{"first":1030,"last":1150}})"),
       "spec.functions[0].config.port_range: contains no whole block"},
  };
  for (const Refusal& refusal : refusals) {
    const Result<void> valid = validate_chain(refusal.spec);
    ASSERT_FALSE(valid.ok()) << refusal.error;
    EXPECT_EQ(valid.error().kind, Error::Kind::kInvalid);
    EXPECT_EQ(valid.error().text().substr(0, std::string(refusal.error).size()), refusal.error);
  }
}

TEST(ChainBuild, RulesMayNotGrowWithoutBound) {
  const auto rule = [](const char* name, int ports) {
    std::string list;
    for (int port = 0; port < ports; ++port)
      list += (port == 0 ? "\"" : ",\"") + std::to_string(port) + "\"";
    return R"({"name":")" + std::string(name) +
           R"(","action":"drop","protocol":"tcp","source_ports":[)" + list +
           R"(],"destination_ports":[)" + list + "]}";
  };
  EXPECT_TRUE(validate_chain(chain({firewall(rule("a", 256))})).ok()) << "65536 entries";
  for (const std::string& rules : {rule("a", 257), rule("a", 256) + ',' + rule("b", 1)}) {
    const Result<void> valid = validate_chain(chain({firewall(rules)}));
    ASSERT_FALSE(valid.ok());
    EXPECT_NE(valid.error().message.find("too many combinations"), std::string::npos);
  }
}

TEST(ChainBuild, ExampleIsValid) {
  EXPECT_TRUE(
      validate_chain(chain({firewall(R"({"name":"web","action":"accept","direction":"from_inside",
      "protocol":"tcp","destination":["0.0.0.0/0"],"destination_ports":["80","443","8000-8080"]})"),
                            kNat}))
          .ok());
}

TEST(ChainBuild, HardStateMustFitTheRecord) {
  const size_t fits[] = {8, 1, 48};
  EXPECT_EQ(layout_hard_state(fits), (std::vector<size_t>{0, 8, 16}));
  const size_t too_much[] = {8, 1, 49};
  EXPECT_EQ(layout_hard_state(too_much), std::nullopt);
}

// ---- Phases and time-outs.

struct Phase {
  const char* description;
  Side side;
  uint8_t flags;
  FlowPhase after;
};

class ChainPhases : public testing::TestWithParam<Crash> {
 protected:
  static Bytes segment(Side side, uint8_t flags) {
    return side == Side::kInside ? PacketBuilder::tcp(kInside, 40000, kRemote, 443, flags).build()
                                 : PacketBuilder::tcp(kRemote, 443, kInside, 40000, flags).build();
  }
  FlowPhase phase() {
    const auto flow = harness.flow_of(Side::kInside, segment(Side::kInside, 0));
    return flow ? flow->phase : FlowPhase::kFree;
  }
  void expect(std::span<const Phase> steps) {
    for (const Phase& step : steps) {
      EXPECT_EQ(harness.send(step.side, segment(step.side, step.flags)).reason, DropReason::kNone)
          << step.description;
      EXPECT_EQ(phase(), step.after) << step.description;
    }
  }
  PoolDirectory directory;
  ChainHarness harness{chain({kOpenFirewall}), directory, GetParam()};
};
INSTANTIATE_TEST_SUITE_P(Crashes, ChainPhases, testing::ValuesIn(kEveryMode));

TEST_P(ChainPhases, TcpFromInside) {
  expect(std::to_array<Phase>({
      {"SYN", Side::kInside, kTcpSyn, FlowPhase::kOpening},
      {"SYN again", Side::kInside, kTcpSyn, FlowPhase::kOpening},
      {"SYN, ACK", Side::kOutside, kTcpSyn | kTcpAck, FlowPhase::kOpening},
      {"ACK", Side::kInside, kTcpAck, FlowPhase::kEstablished},
      {"FIN", Side::kInside, kTcpFin | kTcpAck, FlowPhase::kClosingInside},
      {"FIN again", Side::kInside, kTcpFin | kTcpAck, FlowPhase::kClosingInside},
      {"the other direction goes on", Side::kOutside, kTcpAck, FlowPhase::kClosingInside},
      {"FIN", Side::kOutside, kTcpFin | kTcpAck, FlowPhase::kClosed},
      {"last ACK", Side::kInside, kTcpAck, FlowPhase::kClosed},
      {"the same ports anew", Side::kInside, kTcpSyn, FlowPhase::kOpening},
      {"RST", Side::kOutside, kTcpRst | kTcpAck, FlowPhase::kClosed},
  }));
  EXPECT_EQ(harness.flows(), 1U);
}

TEST_P(ChainPhases, TcpFromOutside) {
  expect(std::to_array<Phase>({
      {"SYN", Side::kOutside, kTcpSyn, FlowPhase::kOpening},
      {"SYN, ACK", Side::kInside, kTcpSyn | kTcpAck, FlowPhase::kOpening},
      {"ACK", Side::kOutside, kTcpAck, FlowPhase::kEstablished},
      {"FIN", Side::kOutside, kTcpFin | kTcpAck, FlowPhase::kClosingOutside},
      {"FIN", Side::kInside, kTcpFin | kTcpAck, FlowPhase::kClosed},
      {"the other side opens a connection of its own", Side::kInside, kTcpSyn, FlowPhase::kOpening},
  }));
  EXPECT_EQ(harness.flow_of(Side::kInside, segment(Side::kInside, 0))->initiator, Side::kInside);
  EXPECT_EQ(harness.flows(), 1U);
}

TEST_P(ChainPhases, WholeConnectionInOneBurst) {
  const auto departures =
      harness.burst({{Side::kInside, segment(Side::kInside, kTcpSyn)},
                     {Side::kOutside, segment(Side::kOutside, kTcpSyn | kTcpAck)},
                     {Side::kInside, segment(Side::kInside, kTcpFin | kTcpAck)},
                     {Side::kOutside, segment(Side::kOutside, kTcpRst)},
                     {Side::kOutside, segment(Side::kOutside, kTcpSyn)}});
  for (const Departure& departure : departures) EXPECT_EQ(departure.reason, DropReason::kNone);
  EXPECT_EQ(phase(), FlowPhase::kOpening);
  EXPECT_EQ(harness.flow_of(Side::kInside, segment(Side::kInside, 0))->initiator, Side::kOutside);
}

TEST(Chain, OnlyTheBeginningOfAConversationOpensAFlow) {
  PoolDirectory directory;
  ChainHarness harness(chain({kOpenFirewall}), directory);
  const Bytes udp = PacketBuilder::udp(kInside, 1, kRemote, 2).build();
  const std::pair<const char*, Bytes> packets[] = {
      {"ACK", PacketBuilder::tcp(kInside, 1, kRemote, 2, kTcpAck).build()},
      {"SYN, ACK", PacketBuilder::tcp(kInside, 1, kRemote, 2, kTcpSyn | kTcpAck).build()},
      {"SYN, FIN", PacketBuilder::tcp(kInside, 1, kRemote, 2, kTcpSyn | kTcpFin).build()},
      {"RST", PacketBuilder::tcp(kInside, 1, kRemote, 2, kTcpRst).build()},
      {"echo reply", PacketBuilder::echo_reply(kInside, kRemote, 1).build()},
      {"ICMP error", PacketBuilder::icmp_error(kInside, kRemote, 3, 3, udp).build()}};
  for (const auto& [description, frame] : packets) {
    EXPECT_EQ(harness.send(Side::kInside, frame).reason, DropReason::kNoFlow) << description;
    EXPECT_EQ(harness.send(Side::kOutside, frame).reason, DropReason::kNoFlow) << description;
  }
  EXPECT_EQ(harness.flows(), 0U);
}

struct IdleTime {
  const char* description;
  std::vector<Arrival> packets;
  uint32_t lives_s;  // idle for this long it goes on, a second longer it does not
};

TEST(Chain, FlowsEndAfterTheirIdleTime) {
  const auto in = [](const PacketBuilder& builder) {
    return Arrival{Side::kInside, builder.build()};
  };
  const auto out = [](const PacketBuilder& builder) {
    return Arrival{Side::kOutside, builder.build()};
  };
  const auto syn = in(PacketBuilder::tcp(kInside, 1, kRemote, 2, kTcpSyn));
  const auto syn_ack = out(PacketBuilder::tcp(kRemote, 2, kInside, 1, kTcpSyn | kTcpAck));
  const auto ack = in(PacketBuilder::tcp(kInside, 1, kRemote, 2, kTcpAck));
  const auto fin = out(PacketBuilder::tcp(kRemote, 2, kInside, 1, kTcpFin | kTcpAck));
  const IdleTime cases[] = {
      {"TCP opening", {syn}, 240},
      {"TCP half open", {syn, syn_ack}, 240},
      {"TCP established", {syn, syn_ack, ack}, 7440},
      {"TCP closing", {syn, syn_ack, ack, fin}, 240},
      {"UDP", {in(PacketBuilder::udp(kInside, 1, kRemote, 2))}, 300},
      {"ICMP", {in(PacketBuilder::echo_request(kInside, kRemote, 3))}, 60},
  };
  for (const IdleTime& idle : cases) {
    for (const uint32_t too_long_s : {0U, 1U}) {
      PoolDirectory directory;
      ChainHarness harness(chain({kFromInsideOnly}), directory);
      harness.burst(idle.packets);
      ASSERT_EQ(harness.flows(), 1U) << idle.description;
      harness.now_s += idle.lives_s + too_long_s;
      EXPECT_EQ(harness.sweep_all(), too_long_s) << idle.description;
      EXPECT_EQ(harness.flows(), 1 - too_long_s) << idle.description;
    }
  }
}

// After a power failure last_seen_s may be as old as the flow, or older. Nobody was there to see a
// packet meanwhile.
TEST(Chain, AFlowIsNotIdleWhileItsNodeIsAway) {
  const Bytes syn = PacketBuilder::tcp(kInside, 1, kRemote, 2, kTcpSyn).build();
  const Bytes answer = PacketBuilder::tcp(kRemote, 2, kInside, 1, kTcpSyn | kTcpAck).build();
  const Bytes more = PacketBuilder::tcp(kInside, 1, kRemote, 2, kTcpAck).build();
  for (const uint32_t idle_s : {7440U, 7441U}) {
    PoolDirectory directory;
    ChainHarness harness(chain({kFromInsideOnly}), directory);
    harness.burst({{Side::kInside, syn}, {Side::kOutside, answer}, {Side::kInside, more}});
    harness.now_s += 100'000;
    harness.resumed_s = harness.now_s;
    harness.apply(chain({kFromInsideOnly}));
    EXPECT_EQ(harness.sweep_all(), 0U);
    harness.now_s += idle_s;
    const DropReason expected = idle_s == 7440 ? DropReason::kNone : DropReason::kNoFlow;
    EXPECT_EQ(harness.send(Side::kInside, more).reason, expected) << idle_s;
  }
}

TEST(Chain, APacketEndsAnExpiredFlowAndIsJudgedAsAFirstOne) {
  PoolDirectory directory;
  ChainHarness harness(chain({kFromInsideOnly}), directory);
  const Bytes request = PacketBuilder::udp(kInside, 1, kRemote, 2).build();
  const Bytes answer = PacketBuilder::udp(kRemote, 2, kInside, 1).build();
  EXPECT_EQ(harness.send(Side::kInside, request).reason, DropReason::kNone);
  harness.now_s += 300;
  EXPECT_EQ(harness.send(Side::kOutside, answer).reason, DropReason::kNone) << "and keeps it alive";
  harness.now_s += 300;
  EXPECT_EQ(harness.send(Side::kInside, request).reason, DropReason::kNone);
  harness.now_s += 301;
  EXPECT_EQ(harness.send(Side::kOutside, answer).reason, DropReason::kFirewallDenied);
  EXPECT_EQ(harness.flows(), 0U);
  EXPECT_EQ(harness.send(Side::kInside, request).reason, DropReason::kNone);
  EXPECT_EQ(harness.counters().expired, 1U);
  EXPECT_EQ(harness.counters().opened, 2U);
}

TEST(Chain, AnErrorNeitherKeepsAFlowNorEndsIt) {
  PoolDirectory directory;
  ChainHarness harness(chain({kFromInsideOnly}), directory);
  const Bytes request = PacketBuilder::udp(kInside, 1, kRemote, 2).build();
  const Bytes error = PacketBuilder::icmp_error("192.0.2.1", kInside, 3, 3, request).build();
  harness.send(Side::kInside, request);
  harness.now_s += 200;
  EXPECT_EQ(harness.send(Side::kOutside, error), (Departure{DropReason::kNone, error}));
  EXPECT_EQ(harness.flow_of(Side::kInside, request)->phase, FlowPhase::kOpening);
  harness.now_s += 101;
  EXPECT_EQ(harness.send(Side::kOutside, error).reason, DropReason::kNoFlow);
  EXPECT_EQ(harness.sweep_all(), 1U);
}

// ---- Revisions.

class ChainRevisions : public testing::Test {
 protected:
  const Bytes request = PacketBuilder::udp(kInside, 1, kRemote, 2).build();
  const Bytes answer = PacketBuilder::udp(kRemote, 2, kInside, 1).build();
  PoolDirectory directory;
};

TEST_F(ChainRevisions, AFlowThatIsStillAllowedGoesOnAndIsStamped) {
  ChainHarness harness(chain({kOpenFirewall}, 1), directory);
  harness.send(Side::kInside, request);
  harness.apply(chain({kFromInsideOnly}, 2));
  EXPECT_EQ(harness.send(Side::kOutside, answer).reason, DropReason::kNone);
  EXPECT_EQ(harness.flow_of(Side::kInside, request)->revision, 2U);
  EXPECT_EQ(harness.counters().revised, 1U);
  EXPECT_EQ(harness.counters().opened, 0U);
}

TEST_F(ChainRevisions, AFlowThatIsNotAllowedAnyMoreIsClosed) {
  ChainHarness harness(chain({kOpenFirewall}, 1), directory);
  harness.send(Side::kOutside, answer);
  harness.apply(chain({kFromInsideOnly}, 2));
  EXPECT_EQ(harness.send(Side::kOutside, answer).reason, DropReason::kFirewallDenied);
  EXPECT_EQ(harness.flows(), 0U);
  EXPECT_EQ(harness.counters().revised_away, 1U);
}

TEST_F(ChainRevisions, AMappingSurvivesANewFirewall) {
  ChainHarness harness(chain({kOpenFirewall, kNat}, 1), directory);
  const Departure before = harness.send(Side::kInside, request);
  harness.apply(chain({kFromInsideOnly, kNat}, 2));
  EXPECT_EQ(harness.send(Side::kInside, request), before);
}

TEST_F(ChainRevisions, TranslationThatComesOrGoesEndsTheFlow) {
  ChainHarness harness(chain({kOpenFirewall}, 1), directory);
  EXPECT_EQ(harness.send(Side::kInside, request).frame, request);
  harness.apply(chain({kOpenFirewall, kNat}, 2));
  const Departure translated = harness.send(Side::kInside, request);
  EXPECT_NE(translated.frame, request);
  EXPECT_EQ(checksum_faults(translated.frame), "");
  harness.apply(chain({kOpenFirewall}, 3));
  EXPECT_EQ(harness.send(Side::kInside, request).frame, request);
}

TEST_F(ChainRevisions, AnAddressThatIsTakenAwayEndsItsMappings) {
  ChainHarness harness(chain({kNat}, 1), directory);
  harness.send(Side::kInside, request);
  harness.apply(chain({{"nat44", R"({"external_addresses":["203.0.113.99"]})"}}, 2));
  const Departure departure = harness.send(Side::kInside, request);
  ASSERT_EQ(departure.reason, DropReason::kNone);
  PacketMeta meta;
  parse(departure.frame.data(), static_cast<uint16_t>(departure.frame.size()), Side::kInside, {},
        meta);
  EXPECT_EQ(to_string(meta.key.src), "203.0.113.99");
}

// ---- Limits.

TEST(Chain, AFullPoolRefusesNewFlowsAndHarmsNoOld) {
  PoolDirectory directory;
  ChainHarness harness(chain({kOpenFirewall}), directory, Crash::kNever, Pool::minimum_bytes());
  const auto request = [](uint32_t n) {
    return PacketBuilder::udp(to_string(Be32::from_host(0x0a000000 + n)), 1, kRemote, 2).build();
  };
  uint32_t opened = 0;
  while (harness.send(Side::kInside, request(opened)).reason == DropReason::kNone) {
    ASSERT_LT(++opened, 100000U);
  }
  EXPECT_GT(opened, 100U);
  EXPECT_EQ(harness.send(Side::kInside, request(opened)).reason, DropReason::kPoolFull);
  for (uint32_t n = 0; n < opened; ++n) {
    ASSERT_EQ(harness.send(Side::kInside, request(n)).reason, DropReason::kNone) << n;
  }
  harness.now_s += 301;
  EXPECT_EQ(harness.sweep_all(), opened);
  EXPECT_EQ(harness.send(Side::kInside, request(opened)).reason, DropReason::kNone);
}

std::vector<Bytes> new_flows(uint32_t round) {
  std::vector<Bytes> frames;
  for (uint32_t n = 0; n < kBurstPackets; ++n) {
    const auto port = static_cast<uint16_t>(2000 + round * kBurstPackets + n);
    frames.push_back(PacketBuilder::udp(kInside, port, kRemote, 2).build());
  }
  return frames;
}

TEST(Chain, ARunEndsWhereTheWriteSetIsFullAndGoesOnAfterTheCommit) {
  PoolDirectory directory;
  ChainHarness harness(chain({kOpenFirewall, kNat}), directory);
  uint32_t round = 0;
  size_t ran = kBurstPackets;
  for (; ran == kBurstPackets; ++round) {
    ASSERT_LT(round, 100U);
    ran = harness.run_uncommitted(new_flows(round));
  }
  EXPECT_EQ(harness.run_uncommitted(new_flows(round)), 0U);
  harness.commit();
  EXPECT_EQ(harness.flows(), (round - 1) * kBurstPackets + ran);
  EXPECT_EQ(harness.run_uncommitted(new_flows(round)), kBurstPackets);
}

TEST(Chain, ABurstOfExpiredFlowsClosesAndOpensEach) {
  PoolDirectory directory;
  ChainHarness harness(chain({kOpenFirewall, kNat}), directory);
  for (uint32_t round = 0; round < 40; ++round) {
    std::vector<Arrival> arrivals;
    for (Bytes& frame : new_flows(round)) arrivals.push_back({Side::kInside, std::move(frame)});
    for (const Departure& departure : harness.burst(arrivals)) {
      ASSERT_EQ(departure.reason, DropReason::kNone);
    }
    harness.now_s += 301;
    for (const Departure& departure : harness.burst(arrivals)) {
      ASSERT_EQ(departure.reason, DropReason::kNone);
    }
  }
  EXPECT_EQ(harness.flows(), 40U * kBurstPackets);
}

// ---- IPv6.

constexpr char kInside6[] = "2001:db8::2";
constexpr char kRemote6[] = "2001:db8:1::7";
constexpr char kRouter6[] = "2001:db8:2::1";

class Ipv6Chain : public testing::TestWithParam<Crash> {
 protected:
  static ChainSpec spec(uint32_t revision = 1, const char* protocol = "any") {
    const std::string rule = std::string(R"({"name":"out","action":"accept","direction":)") +
                             R"("from_inside","protocol":")" + protocol + "\"}";
    return chain({firewall(rule), kNat}, revision);
  }
  PoolDirectory directory;
};

TEST_P(Ipv6Chain, PassesTheFirewallAndIsNotTranslated) {
  ChainHarness harness(spec(), directory, GetParam());
  struct Exchange {
    Bytes out;
    Bytes back;
  };
  const Exchange exchanges[] = {
      {PacketBuilder::tcp(kInside6, 40000, kRemote6, 443, kTcpSyn).vlan(7).build(),
       PacketBuilder::tcp(kRemote6, 443, kInside6, 40000, kTcpSyn | kTcpAck).build()},
      {PacketBuilder::udp(kInside6, 40000, kRemote6, 53).hop_by_hop().payload(5).build(),
       PacketBuilder::udp(kRemote6, 53, kInside6, 40000).payload(90).build()},
      {PacketBuilder::echo_request(kInside6, kRemote6, 9).build(),
       PacketBuilder::echo_reply(kRemote6, kInside6, 9).build()},
      {PacketBuilder::udp(kInside6, 0, kRemote6, 0).protocol(47).build(),
       PacketBuilder::udp(kRemote6, 0, kInside6, 0).protocol(47).build()}};
  uint64_t flows = 0;
  for (const auto& [out, back] : exchanges) {
    EXPECT_NE(harness.send(Side::kOutside, back).reason, DropReason::kNone);
    EXPECT_EQ(harness.send(Side::kInside, out), (Departure{DropReason::kNone, out}));
    EXPECT_EQ(harness.send(Side::kOutside, back), (Departure{DropReason::kNone, back}));
    EXPECT_EQ(harness.flows(), ++flows);
    const auto flow = harness.flow_of(Side::kInside, out);
    ASSERT_TRUE(flow);
    EXPECT_EQ(flow->addresses, (WideAddresses{ipv6_address(kInside6), ipv6_address(kRemote6)}));
    EXPECT_EQ(flow->outside_key, flow->inside_key.reversed());
  }
}

TEST_P(Ipv6Chain, ErrorsAboutAFlowPassAndOthersDoNot) {
  ChainHarness harness(spec(), directory, GetParam());
  const Bytes out = PacketBuilder::udp(kInside6, 40000, kRemote6, 53).payload(300).build();
  const Bytes error =
      PacketBuilder::icmp_error(kRouter6, kInside6, kIcmpv6PacketTooBig, 0, out, 200).build();
  EXPECT_EQ(harness.send(Side::kOutside, error).reason, DropReason::kNoFlow);
  ASSERT_EQ(harness.send(Side::kInside, out).reason, DropReason::kNone);
  EXPECT_EQ(harness.send(Side::kOutside, error), (Departure{DropReason::kNone, error}));
  const Bytes other = PacketBuilder::udp(kInside6, 40001, kRemote6, 53).payload(300).build();
  EXPECT_EQ(
      harness
          .send(Side::kOutside, PacketBuilder::icmp_error(kRouter6, kInside6, 1, 0, other).build())
          .reason,
      DropReason::kNoFlow);
}

TEST_P(Ipv6Chain, BothFamiliesInOneBurst) {
  ChainHarness harness(spec(), directory, GetParam());
  std::vector<Arrival> arrivals;
  for (uint16_t port = 1000; port < 1060; ++port) {
    arrivals.push_back({Side::kInside, PacketBuilder::udp(kInside6, port, kRemote6, 53).build()});
    arrivals.push_back({Side::kInside, PacketBuilder::udp(kInside, port, kRemote, 53).build()});
  }
  for (int round = 0; round < 2; ++round) {
    const std::vector<Departure> departures = harness.burst(arrivals);
    for (size_t i = 0; i < departures.size(); ++i) {
      ASSERT_EQ(departures[i].reason, DropReason::kNone);
      EXPECT_EQ(departures[i].frame == arrivals[i].frame, i % 2 == 0) << "translated or not";
    }
    EXPECT_EQ(harness.flows(), arrivals.size());
  }
}

TEST_P(Ipv6Chain, ANewRevisionJudgesItsFlowsOnceMore) {
  ChainHarness harness(spec(), directory, GetParam());
  const Bytes tcp = PacketBuilder::tcp(kInside6, 40000, kRemote6, 443, kTcpSyn).build();
  const Bytes ack = PacketBuilder::tcp(kInside6, 40000, kRemote6, 443, kTcpAck).build();
  const Bytes udp = PacketBuilder::udp(kInside6, 40000, kRemote6, 53).build();
  for (const Bytes& frame : {tcp, udp}) harness.send(Side::kInside, frame);
  harness.apply(spec(2, "tcp"));
  EXPECT_EQ(harness.send(Side::kInside, ack).reason, DropReason::kNone);
  EXPECT_EQ(harness.send(Side::kInside, udp).reason, DropReason::kFirewallDenied);
}

INSTANTIATE_TEST_SUITE_P(Crashes, Ipv6Chain, testing::ValuesIn(kEveryMode));

}  // namespace
}  // namespace flowkeep
