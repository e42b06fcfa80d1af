// State that a function keeps beside the flows, and the end of flows as functions hear of it. With
// functions of the test's own; each case runs again with a crash in every burst.
#include "nfs/keyed_state.h"

#include <random>

#include "nfs/chain_harness.h"

namespace flowkeep {
namespace {

constexpr const char* kRemote = "198.51.100.7";
constexpr uint32_t kMostFlows = 5;

// Counts the flows of each inside host, allows so many, and counts the host's packets.
template <uint32_t kVersion>
class Meter {
 public:
  static constexpr std::string_view kType = "meter";
  static constexpr Scope kScope = Scope::kHost;
  static constexpr uint32_t kStateVersion = kVersion;
  struct Hard {
    uint64_t counted;
  };
  struct Soft {};
  struct Host {
    uint32_t flows = 0;
    uint32_t packets = 0;
  };

  Soft make_soft() const { return {}; }
  uint32_t keyed_changes() const { return 1; }
  uint32_t process_changes() const { return 1; }
  Decision open(NewFlow<Meter>& flow, Soft&) const {
    KeyedState state = flow.keyed();
    Host host = state.find<Host>(key_of(flow.inside_key())).value_or(Host{});
    if (host.flows == kMostFlows) return Decision::refuse(DropReason::kFirewallDenied);
    ++host.flows;
    if (!state.put(key_of(flow.inside_key()), host)) return Decision::refuse(DropReason::kPoolFull);
    flow.commit({1});
    return Decision::accept();
  }
  void close(EndingFlow<Meter>& flow, Soft&) const {
    EXPECT_EQ(flow.hard().counted, 1U);
    KeyedState state = flow.keyed();
    auto host = state.find<Host>(key_of(flow.inside_key()));
    if (!host) return;
    if (--host->flows == 0) return state.erase(key_of(flow.inside_key()));
    EXPECT_TRUE(state.put(key_of(flow.inside_key()), *host));
  }
  void process(Burst<Meter>& burst, Soft&) const {
    burst.for_each([](FlowPacket<Meter>& packet) {
      KeyedState state = packet.keyed();
      auto host = state.find<Host>(key_of(packet.inside_key()));
      if (!host) return packet.drop(DropReason::kPoolDamaged);
      ++host->packets;
      EXPECT_TRUE(state.put(key_of(packet.inside_key()), *host));
    });
  }
  bool still_allowed(const FlowKey&, Side, const Hard&, Soft&) const { return true; }
  static StateKey key_of(const FlowKey& inside) { return {.kind = 0, .address = inside.src}; }
};

// Refuses flows to port 9. Behind the meter, so that what it refuses was counted already.
class Gate {
 public:
  static constexpr std::string_view kType = "gate";
  static constexpr Scope kScope = Scope::kFlow;
  struct Hard {};
  struct Soft {};
  Soft make_soft() const { return {}; }
  Decision open(NewFlow<Gate>& flow, Soft&) const {
    return flow.inside_key().dst_port.host() == 9 ? Decision::refuse(DropReason::kFirewallDenied)
                                                  : Decision::accept();
  }
  bool still_allowed(const FlowKey& inside, Side, const Hard&, Soft&) const {
    return inside.dst_port.host() != 9;
  }
};

std::unique_ptr<AnyFunction> make_function(std::string_view name) {
  if (name == "meter") return std::make_unique<Function<Meter<1>>>(Meter<1>());
  if (name == "meter2") return std::make_unique<Function<Meter<2>>>(Meter<2>());
  if (name == "gate") return std::make_unique<Function<Gate>>(Gate());
  return nullptr;
}

ChainSpec chain(uint32_t revision, std::vector<FunctionSpec> functions) {
  return {"test", revision, std::move(functions)};
}
const FunctionSpec kNat = {"nat44", R"({"external_addresses":["203.0.113.10"]})"};

class KeyedStateTest : public testing::TestWithParam<Crash> {
 protected:
  ChainHarness& harness(const ChainSpec& spec) {
    harness_ =
        std::make_unique<ChainHarness>(spec, directory_, GetParam(), 64 << 20, make_function);
    return *harness_;
  }
  ChainHarness& harness() { return *harness_; }
  static Bytes packet(int host, uint16_t port, uint16_t remote_port = 53) {
    return PacketBuilder::udp("10.0.0." + std::to_string(host), port, kRemote, remote_port)
        .payload(8)
        .build();
  }
  std::string_view send(const Bytes& frame) {
    return drop_reason_name(harness().send(Side::kInside, frame).reason);
  }
  std::optional<Meter<1>::Host> host_state(int host) {
    const auto address = Be32::from_host(0x0a000000u + static_cast<uint32_t>(host));
    const FlowKey key{.src = address, .dst = {}, .src_port = {}, .dst_port = {}};
    const auto bucket = static_cast<uint32_t>(
        steering_hash(Scope::kHost, key, harness().table().hash_secret()) % ChainHarness::kBuckets);
    return KeyedState(harness().table(), bucket, state_owner("meter", 0, 1))
        .find<Meter<1>::Host>({.kind = 0, .address = address});
  }
  uint32_t keyed_records() {
    uint32_t keyed = 0;
    for (uint32_t bucket = 0; bucket < ChainHarness::kBuckets; ++bucket) {
      keyed += harness().table().keyed(bucket);
    }
    return keyed;
  }

 private:
  PoolDirectory directory_;
  std::unique_ptr<ChainHarness> harness_;
};
INSTANTIATE_TEST_SUITE_P(All, KeyedStateTest, testing::ValuesIn(kEveryMode));

TEST_P(KeyedStateTest, CountsFlowsFromOpenToExpiryAndGoesWithTheLast) {
  harness(chain(1, {{"meter", ""}, {"gate", ""}}));
  for (uint16_t port = 1; port <= 7; ++port) {
    EXPECT_EQ(send(packet(1, port)), port <= kMostFlows ? "none" : "firewall_denied");
  }
  EXPECT_EQ(send(packet(2, 1)), "none");
  EXPECT_EQ(host_state(1)->flows, kMostFlows);
  EXPECT_EQ(host_state(2)->flows, 1U);
  EXPECT_EQ(harness().flows(), kMostFlows + 1);
  EXPECT_EQ(keyed_records(), 2U);
  harness().now_s += 200;
  EXPECT_EQ(send(packet(1, 3)), "none");
  harness().now_s += 101;
  EXPECT_EQ(harness().sweep_all(), kMostFlows);
  EXPECT_EQ(host_state(1)->flows, 1U);
  EXPECT_FALSE(host_state(2));
  EXPECT_EQ(send(packet(1, 8)), "none");
  harness().now_s += 301;
  harness().sweep_all();
  EXPECT_EQ(keyed_records(), 0U);
}

TEST_P(KeyedStateTest, AFlowThatALaterFunctionRefusesIsTakenBack) {
  harness(chain(1, {{"meter", ""}, {"gate", ""}}));
  for (uint16_t port = 1; port <= 20; ++port) {
    EXPECT_EQ(send(packet(1, port, 9)), "firewall_denied");
  }
  EXPECT_EQ(keyed_records(), 0U);
  EXPECT_EQ(send(packet(1, 1)), "none");
  EXPECT_EQ(send(packet(1, 1, 9)), "firewall_denied");
  EXPECT_EQ(host_state(1)->flows, 1U);
}

TEST_P(KeyedStateTest, AnExpiredFlowEndsBeforeItsPortsBeginAnew) {
  harness(chain(1, {{"meter", ""}, kNat}));
  for (int round = 0; round < 10; ++round) {
    EXPECT_EQ(send(packet(1, 1)), "none");
    EXPECT_EQ(host_state(1)->flows, 1U);
    harness().now_s += 301;
  }
}

TEST_P(KeyedStateTest, ProcessChangesItForEachPacketOnce) {
  harness(chain(1, {{"meter", ""}, {"gate", ""}}));
  for (int round = 1; round <= 3; ++round) {
    std::vector<Arrival> arrivals;
    for (int host = 1; host <= 40; ++host) {
      for (uint16_t port = 1; port <= 3; ++port) {
        arrivals.push_back({Side::kInside, packet(host, port)});
      }
    }
    for (const Departure& departure : harness().burst(arrivals)) {
      EXPECT_EQ(departure.reason, DropReason::kNone);
    }
    for (int host = 1; host <= 40; ++host) {
      EXPECT_EQ(host_state(host)->packets, static_cast<uint32_t>(3 * round));
      EXPECT_EQ(host_state(host)->flows, 3U);
    }
  }
}

TEST_P(KeyedStateTest, OfAFunctionThatIsGoneIsRemoved) {
  harness(chain(1, {{"meter", ""}, {"gate", ""}}));
  EXPECT_EQ(send(packet(1, 1)), "none");
  harness().apply(chain(2, {{"gate", ""}}));
  harness().sweep_all();
  EXPECT_EQ(keyed_records(), 0U);
}

TEST_P(KeyedStateTest, OfAnotherVersionIsNotFound) {
  harness(chain(1, {{"meter", ""}, {"gate", ""}}));
  EXPECT_EQ(send(packet(1, 1)), "none");
  harness().apply(chain(2, {{"meter2", ""}, {"gate", ""}}));
  harness().sweep_all();
  EXPECT_EQ(keyed_records(), 0U);
  EXPECT_EQ(send(packet(1, 1)), "none");
  EXPECT_EQ(keyed_records(), 1U);
}

TEST_P(KeyedStateTest, SurvivesARevisionThatKeepsItsFunction) {
  harness(chain(1, {{"meter", ""}, {"gate", ""}}));
  for (uint16_t port = 1; port <= 3; ++port) EXPECT_EQ(send(packet(1, port)), "none");
  harness().apply(chain(2, {{"meter", ""}, {"gate", ""}}));
  harness().sweep_all();
  EXPECT_EQ(send(packet(1, 4)), "none");
  EXPECT_EQ(host_state(1)->flows, 4U);
  harness().now_s += 301;
  harness().sweep_all();
  EXPECT_EQ(keyed_records(), 0U);
}

// Keys that differ in one part only are different keys, and a second name leads to its state.
TEST(KeyedState, KeysAreTheSumOfTheirParts) {
  PoolDirectory directory;
  const auto pool = open_pool(directory, 64 << 20);
  ASSERT_TRUE(pool->attach_chain("test", 16).ok());
  FlowTable table(*pool, 0, 0);
  const StateKey first{3, Be32{1}, Be16{2}, 17, Be32{4}};
  std::vector<StateKey> keys(6, first);
  keys[1].kind = 4;
  keys[2].address = Be32{2};
  keys[3].port = Be16{1};
  keys[4].protocol = 6;
  keys[5].peer = Be32{5};
  KeyedState state(table, 1, Be16{7});
  for (uint64_t n = 0; n < keys.size(); ++n) ASSERT_TRUE(state.put(keys[n], n));
  for (uint64_t n = 0; n < keys.size(); ++n) EXPECT_EQ(state.find<uint64_t>(keys[n]), n);
  EXPECT_FALSE(KeyedState(table, 1, Be16{8}).find<uint64_t>(first));
  EXPECT_FALSE(state.find_second<uint64_t>(first));
  const StateKey named{9, Be32{9}};
  ASSERT_TRUE(state.put(named, uint64_t{99}, &first));
  EXPECT_EQ(state.find_second<uint64_t>(first), 99U);
  EXPECT_FALSE(state.put(StateKey{8, Be32{8}}, uint64_t{1}, &first)) << "the name is another's";
  state.erase(named);
  EXPECT_FALSE(state.find_second<uint64_t>(first));
}

}  // namespace
}  // namespace flowkeep
