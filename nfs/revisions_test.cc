// Flows outlive revisions: a worker of another revision finds each function's hard state where the
// flow's own revision left it, and moves it. With functions of the test's own, one of which keeps
// state of variable size. Each case runs again with a crash in every burst.
#include <cstring>

#include "nfs/chain_harness.h"

namespace flowkeep {
namespace {

constexpr const char* kInside = "10.0.0.2";
constexpr const char* kRemote = "198.51.100.7";

// Keeps what it can check in each packet: state that was moved wrongly is not delivered.
template <uint32_t kVersion>
class Stamp {
 public:
  static constexpr std::string_view kType = "stamp";
  static constexpr Scope kScope = Scope::kFlow;
  static constexpr uint32_t kStateVersion = kVersion;
  struct Hard {
    uint64_t stamp;
    uint64_t again[kVersion];  // each version keeps one more copy of it
  };
  struct Soft {};

  explicit Stamp(bool adopts) : adopts_(adopts) {}
  Soft make_soft() const { return {}; }
  Decision open(NewFlow<Stamp>& flow, Soft&) const {
    flow.commit(of(flow.inside_key()));
    return Decision::accept();
  }
  bool still_allowed(const FlowKey& inside, Side, const Hard& hard, Soft&) const {
    return std::memcmp(&hard, &static_cast<const Hard&>(of(inside)), sizeof(hard)) == 0;
  }
  void process(Burst<Stamp>& burst, Soft&) const {
    burst.for_each([](FlowPacket<Stamp>& packet) {
      const Hard hard = packet.hard();
      const Hard expected = of(packet.inside_key());
      if (std::memcmp(&hard, &expected, sizeof(hard)) != 0) packet.drop(DropReason::kNotForUs);
    });
  }
  std::optional<Hard> adopt(const FlowKey& inside, Side) const {
    return adopts_ ? std::optional(of(inside)) : std::nullopt;
  }
  // From version 1 alone.
  std::optional<Hard> migrate(uint32_t from_version, std::span<const uint8_t> old) const {
    if (from_version != 1) return std::nullopt;
    Hard hard;
    std::memcpy(&hard.stamp, old.data(), sizeof(hard.stamp));
    for (uint64_t& again : hard.again) again = hard.stamp;
    return hard;
  }

 private:
  static Hard of(const FlowKey& inside) {
    Hard hard;
    hard.stamp = hash_key(inside, {1, 2});
    for (uint64_t& again : hard.again) again = hard.stamp;
    return hard;
  }
  bool adopts_;
};

// Remembers the length of each packet of the flow, in state of variable size.
template <uint32_t kVersion>
class Ledger {
 public:
  static constexpr std::string_view kType = "ledger";
  static constexpr Scope kScope = Scope::kFlow;
  static constexpr uint32_t kStateVersion = kVersion;
  static constexpr size_t kVariableBytes = 4096;
  struct Hard {};
  struct Soft {};

  Soft make_soft() const { return {}; }
  Decision open(NewFlow<Ledger>&, Soft&) const { return Decision::accept(); }
  bool still_allowed(const FlowKey&, Side, const Hard&, Soft&) const { return true; }
  void process(Burst<Ledger>& burst, Soft&) const {
    burst.for_each([](FlowPacket<Ledger>& packet) {
      const auto before = packet.variable();
      std::vector<std::byte> content(before.begin(), before.end());
      content.push_back(static_cast<std::byte>(packet.meta().length));
      if (!packet.commit_variable(content)) packet.drop(DropReason::kPoolFull);
    });
  }
};

// "stamp", "stamp2", "adopting-stamp", "ledger", "ledger2": versions of two types.
std::unique_ptr<AnyFunction> make_function(std::string_view name) {
  if (name == "stamp") return std::make_unique<Function<Stamp<1>>>(Stamp<1>(false));
  if (name == "adopting-stamp") return std::make_unique<Function<Stamp<1>>>(Stamp<1>(true));
  if (name == "stamp2") return std::make_unique<Function<Stamp<2>>>(Stamp<2>(false));
  if (name == "ledger") return std::make_unique<Function<Ledger<1>>>(Ledger<1>());
  if (name == "ledger2") return std::make_unique<Function<Ledger<2>>>(Ledger<2>());
  return nullptr;
}

const FunctionSpec kNat = {"nat44", R"({"external_addresses":["203.0.113.10"]})"};
const FunctionSpec kFirewall = {
    "firewall", R"({"rules":[{"name":"out","action":"accept","direction":"from_inside"}]})"};

ChainSpec chain(uint32_t revision, std::vector<FunctionSpec> functions) {
  return {"test", revision, std::move(functions)};
}

class Revisions : public testing::TestWithParam<Crash> {
 protected:
  std::unique_ptr<ChainHarness> harness_of(const ChainSpec& spec) {
    return std::make_unique<ChainHarness>(spec, directory, GetParam(), 64 << 20, make_function);
  }
  // Flow n of several, in one burst. Departures as the outside sees them.
  static std::vector<Departure> send_all(ChainHarness& harness, size_t payload = 10) {
    std::vector<Arrival> arrivals;
    for (uint16_t n = 0; n < kFlows; ++n) {
      arrivals.push_back({Side::kInside, packet(n, payload)});
    }
    return harness.burst(arrivals);
  }
  static Bytes packet(uint16_t n, size_t payload = 10) {
    return PacketBuilder::udp(kInside, static_cast<uint16_t>(1000 + n), kRemote, 53)
        .payload(payload)
        .build();
  }
  static std::vector<std::byte> ledger_of(ChainHarness& harness, uint16_t n) {
    const FlowKey key = harness.flow_of(Side::kInside, packet(n))->inside_key;
    FlowTable& table = harness.table();
    const auto bucket = harness.flow_of(Side::kInside, packet(n))->bucket;
    const auto content = table.extent(table.find(bucket, key, hash_key(key, table.hash_secret())));
    return {content.begin(), content.end()};
  }

  static constexpr uint16_t kFlows = 40;
  PoolDirectory directory;
};

TEST_P(Revisions, StateMovesWithTheFunctionsAndBackAgain) {
  const ChainSpec first = chain(1, {{"stamp", ""}, kNat});
  const ChainSpec second = chain(2, {kFirewall, kNat});  // nat44's state moves to the front
  const ChainSpec third = chain(3, {{"adopting-stamp", ""}, kFirewall, kNat});
  auto harness = harness_of(chain(1, {{"stamp", ""}, kNat}));
  const auto before = send_all(*harness);
  for (const Departure& departure : before) ASSERT_EQ(departure.reason, DropReason::kNone);
  // Forward, back, forward: each time the mapping is the same, and no flow opens again.
  for (const ChainSpec& next : {second, third, second, third, first}) {
    SCOPED_TRACE(next.revision);
    harness->apply(next);
    if (next.revision == 1) {
      harness->apply(third);  // "stamp" of revision 1 takes over what "adopting-stamp" wrote
      send_all(*harness);
      harness->apply(first);
    }
    EXPECT_EQ(send_all(*harness), before);
    EXPECT_EQ(harness->flows(), kFlows);
    EXPECT_EQ(harness->flow_of(Side::kInside, packet(0))->revision, next.revision);
  }
}

TEST_P(Revisions, AFunctionThatAdoptsNothingEndsTheFlow) {
  auto harness = harness_of(chain(1, {kFirewall}));
  send_all(*harness);
  harness->apply(chain(2, {{"stamp", ""}, kFirewall}));
  // From the outside nothing opens; from the inside each flow begins anew.
  const Bytes answer = PacketBuilder::udp(kRemote, 53, kInside, 1000).build();
  EXPECT_EQ(harness->send(Side::kOutside, answer).reason, DropReason::kFirewallDenied);
  for (const Departure& departure : send_all(*harness)) {
    EXPECT_EQ(departure.reason, DropReason::kNone);
  }
  EXPECT_EQ(harness->flows(), kFlows);
}

TEST_P(Revisions, StateOfAnotherVersionIsMigratedOrTheFlowEnds) {
  auto harness = harness_of(chain(1, {{"stamp", ""}, kNat}));
  const auto before = send_all(*harness);
  harness->apply(chain(2, {{"stamp2", ""}, kNat}));
  EXPECT_EQ(send_all(*harness), before);
  // Version 1 does not know version 2.
  harness->apply(chain(3, {{"stamp", ""}, kNat}));
  for (const Departure& departure : send_all(*harness)) {
    EXPECT_EQ(departure.reason, DropReason::kNone);
  }
  EXPECT_EQ(harness->flows(), kFlows);
}

TEST_P(Revisions, AnErrorAboutAFlowTakesItOverToo) {
  auto harness = harness_of(chain(1, {{"stamp", ""}, kNat}));
  const Bytes sent = harness->send(Side::kInside, packet(1)).frame;
  harness->apply(chain(2, {kFirewall, kNat}));
  const Bytes error = PacketBuilder::icmp_error("192.0.2.1", "203.0.113.10", 3, 3, sent).build();
  EXPECT_EQ(harness->send(Side::kOutside, error).reason, DropReason::kNone);
  EXPECT_EQ(harness->flow_of(Side::kInside, packet(1))->revision, 2U);
}

TEST_P(Revisions, TwoFunctionsOfOneTypeKeepTheirOwnState) {
  auto harness = harness_of(chain(1, {{"stamp", ""}, {"stamp", ""}, kNat}));
  const auto before = send_all(*harness);
  harness->apply(chain(2, {kFirewall, {"stamp", ""}, kNat}));
  EXPECT_EQ(send_all(*harness), before);
  EXPECT_EQ(harness->chain().state_layout().function[0].instance, 0);
}

TEST_P(Revisions, VariableStateStaysWithItsFunctionAndGoesWithIt) {
  auto harness = harness_of(chain(1, {{"ledger", ""}, kNat}));
  const auto before = send_all(*harness);
  for (int i = 0; i < 30; ++i) EXPECT_EQ(send_all(*harness), before);
  const std::vector<std::byte> of_flow(31, static_cast<std::byte>(packet(0).size()));
  EXPECT_EQ(ledger_of(*harness, 7), of_flow);
  harness->apply(chain(2, {{"adopting-stamp", ""}, {"ledger", ""}, kNat}));
  EXPECT_EQ(send_all(*harness), before);
  EXPECT_EQ(ledger_of(*harness, 7).size(), of_flow.size() + 1);
  // Of another version: dropped. The flow goes on.
  harness->apply(chain(3, {{"ledger2", ""}, kNat}));
  EXPECT_EQ(send_all(*harness), before);
  EXPECT_EQ(ledger_of(*harness, 7).size(), 1U);
  harness->apply(chain(4, {kNat}));
  EXPECT_EQ(send_all(*harness), before);
  EXPECT_EQ(ledger_of(*harness, 7).size(), 0U);
}

TEST_P(Revisions, ALayoutThatThePoolDoesNotKnowEndsTheFlow) {
  auto harness = harness_of(chain(1, {kFirewall}));
  send_all(*harness);
  for (uint32_t entry = 0; entry < kLayoutEntries; ++entry) {
    const Regions regions(harness->pool().base(), Geometry::of(harness->pool().bytes()));
    regions.layouts(0)[entry].checksum = 0;
  }
  harness->apply(chain(2, {kFirewall}));
  const Bytes answer = PacketBuilder::udp(kRemote, 53, kInside, 1000).build();
  EXPECT_EQ(harness->send(Side::kOutside, answer).reason, DropReason::kFirewallDenied);
}

INSTANTIATE_TEST_SUITE_P(Modes, Revisions, testing::ValuesIn(kEveryMode));

TEST(VariableState, OfOneFunctionAtMost) {
  FunctionContext context;
  context.make_function = make_function;
  const auto built = Chain::build(chain(1, {{"ledger", ""}, {"ledger", ""}}), context);
  ASSERT_FALSE(built.ok());
  EXPECT_EQ(built.error().field, "spec.functions[1].type");
  EXPECT_NE(built.error().message.find("accepted: one such function"), std::string::npos);
}

TEST(VariableState, AFullPoolIsSaidAndTheFlowKeepsWhatItHad) {
  PoolDirectory directory;
  ChainHarness harness(chain(1, {{"ledger", ""}}), directory, Crash::kNever, Pool::minimum_bytes(),
                       make_function);
  uint16_t n = 0;
  const auto packet = [](uint16_t number) {
    return PacketBuilder::udp(kInside, number, kRemote, 53).build();
  };
  while (harness.send(Side::kInside, packet(++n)).reason == DropReason::kNone) ASSERT_LT(n, 5'000);
  EXPECT_EQ(harness.send(Side::kInside, packet(n)).reason, DropReason::kPoolFull);
  EXPECT_GT(harness.flows(), 50U);
  EXPECT_TRUE(harness.flow_of(Side::kInside, packet(1)).has_value());
}

}  // namespace
}  // namespace flowkeep
