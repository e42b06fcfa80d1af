#include "nfs/firewall/firewall.h"

#include <gtest/gtest.h>

#include <random>

#include "nfs/chain_harness.h"

namespace flowkeep {
namespace {

ChainSpec firewall(const std::string& rules) {
  return {"test", 1, {{"firewall", "{\"rules\":[" + rules + "]}"}}};
}

struct Case {
  const char* description;
  Side side;
  PacketBuilder packet;
  bool accepted;
};

PacketBuilder syn(const char* src, uint16_t src_port, const char* dst, uint16_t dst_port) {
  return PacketBuilder::tcp(src, src_port, dst, dst_port, kTcpSyn);
}

class FirewallTest : public testing::TestWithParam<Crash> {
 protected:
  // Each case by itself.
  static void expect(const std::string& rules, std::span<const Case> cases) {
    for (const Case& test : cases) {
      PoolDirectory directory;
      ChainHarness harness(firewall(rules), directory, GetParam());
      const Bytes frame = test.packet.build();
      const Departure expected = test.accepted ? Departure{DropReason::kNone, frame}
                                               : Departure{DropReason::kFirewallDenied, {}};
      EXPECT_EQ(harness.send(test.side, frame), expected) << test.description;
      EXPECT_EQ(harness.flows(), test.accepted ? 1U : 0U) << test.description;
    }
  }
};
INSTANTIATE_TEST_SUITE_P(Crashes, FirewallTest, testing::Values(Crash::kNever, Crash::kEveryBurst));

TEST_P(FirewallTest, DeniesWhatNoRuleMatches) {
  expect("", std::to_array<Case>({
                 {"from inside", Side::kInside, syn("10.0.0.2", 1, "192.0.2.1", 80), false},
                 {"from outside", Side::kOutside, syn("192.0.2.1", 80, "10.0.0.2", 1), false},
             }));
}

TEST_P(FirewallTest, FirstMatchWins) {
  expect(R"({"name":"not this host","action":"drop","source":["10.0.0.9"]},
            {"name":"net","action":"accept","source":["10.0.0.0/24"]},
            {"name":"never reached","action":"drop","source":["10.0.0.0/8"],"protocol":"tcp"},
            {"name":"rest","action":"accept","source":["10.0.0.0/8"]})",
         std::to_array<Case>({
             {"first rule", Side::kInside, syn("10.0.0.9", 1, "192.0.2.1", 80), false},
             {"second rule", Side::kInside, syn("10.0.0.8", 1, "192.0.2.1", 80), true},
             {"third rule", Side::kInside, syn("10.0.1.9", 1, "192.0.2.1", 80), false},
             {"last rule", Side::kInside, PacketBuilder::udp("10.0.1.9", 1, "192.0.2.1", 80), true},
             {"no rule", Side::kInside, syn("11.0.0.9", 1, "192.0.2.1", 80), false},
         }));
}

TEST_P(FirewallTest, Directions) {
  expect(
      R"({"name":"web","action":"accept","direction":"from_inside","protocol":"tcp","destination_ports":["80","443"]},
            {"name":"ssh","action":"accept","direction":"from_outside","protocol":"tcp","destination":["10.0.0.2"],"destination_ports":["22"]},
            {"name":"ping","action":"accept","direction":"any","protocol":"icmp"})",
      std::to_array<Case>({
          {"web out", Side::kInside, syn("10.0.0.2", 1, "192.0.2.1", 443), true},
          {"web in", Side::kOutside, syn("192.0.2.1", 1, "10.0.0.2", 443), false},
          {"ssh in", Side::kOutside, syn("192.0.2.1", 1, "10.0.0.2", 22), true},
          {"ssh in to another", Side::kOutside, syn("192.0.2.1", 1, "10.0.0.3", 22), false},
          {"ssh out", Side::kInside, syn("10.0.0.3", 1, "10.0.0.2", 22), false},
          {"ping out", Side::kInside, PacketBuilder::echo_request("10.0.0.2", "192.0.2.1", 5),
           true},
          {"ping in", Side::kOutside, PacketBuilder::echo_request("192.0.2.1", "10.0.0.2", 5),
           true},
          {"DNS", Side::kInside, PacketBuilder::udp("10.0.0.2", 1, "192.0.2.1", 80), false},
      }));
}

TEST_P(FirewallTest, PortRanges) {
  expect(
      R"({"name":"a","action":"accept","protocol":"udp","source_ports":["1000-2000","65535"],"destination_ports":["0-52","54"]})",
      std::to_array<Case>({
          {"lower ends", Side::kInside, PacketBuilder::udp("10.0.0.2", 1000, "192.0.2.1", 0), true},
          {"upper ends", Side::kInside, PacketBuilder::udp("10.0.0.2", 2000, "192.0.2.1", 52),
           true},
          {"single ports", Side::kInside, PacketBuilder::udp("10.0.0.2", 65535, "192.0.2.1", 54),
           true},
          {"source below", Side::kInside, PacketBuilder::udp("10.0.0.2", 999, "192.0.2.1", 54),
           false},
          {"source above", Side::kInside, PacketBuilder::udp("10.0.0.2", 2001, "192.0.2.1", 54),
           false},
          {"destination between", Side::kInside,
           PacketBuilder::udp("10.0.0.2", 1000, "192.0.2.1", 53), false},
      }));
}

TEST_P(FirewallTest, AnswersPassBecauseTheFlowExists) {
  PoolDirectory directory;
  ChainHarness harness(firewall(R"({"name":"out","action":"accept","direction":"from_inside"})"),
                       directory, GetParam());
  const Bytes answer = PacketBuilder::udp("192.0.2.1", 53, "10.0.0.2", 4000).build();
  EXPECT_EQ(harness.send(Side::kOutside, answer).reason, DropReason::kFirewallDenied);
  harness.send(Side::kInside, PacketBuilder::udp("10.0.0.2", 4000, "192.0.2.1", 53).build());
  EXPECT_EQ(harness.send(Side::kOutside, answer), (Departure{DropReason::kNone, answer}));
  const Bytes other = PacketBuilder::udp("192.0.2.1", 54, "10.0.0.2", 4000).build();
  EXPECT_EQ(harness.send(Side::kOutside, other).reason, DropReason::kFirewallDenied);
}

// Rules of every shape against a search that is written anew here.
TEST(LinearClassifier, EqualsANaiveSearch) {
  constexpr uint32_t kSeed = 99;
  SCOPED_TRACE("seed " + std::to_string(kSeed));
  std::mt19937 random(kSeed);
  const auto small = [&random](uint32_t below) { return static_cast<uint32_t>(random() % below); };
  std::vector<ClassifierRule> rules;
  for (uint32_t i = 0; i < 60; ++i) {
    ClassifierRule rule;
    rule.src_bits = static_cast<uint8_t>(small(3) == 0 ? 0 : 24 + small(9));
    rule.dst_bits = static_cast<uint8_t>(small(3) == 0 ? 0 : 24 + small(9));
    const auto masked = [](uint32_t address, uint8_t bits) {
      return Be32::from_host(bits == 0 ? 0 : address >> (32 - bits) << (32 - bits));
    };
    rule.src = masked(0x0a000000 + small(64), rule.src_bits);
    rule.dst = masked(0x0a000000 + small(64), rule.dst_bits);
    rule.protocol = std::array<uint8_t, 3>{0, 6, 17}[small(3)];
    rule.direction = static_cast<RuleDirection>(small(3));
    rule.dst_port_first = static_cast<uint16_t>(small(8));
    rule.dst_port_last = static_cast<uint16_t>(rule.dst_port_first + small(4));
    rule.rule = i / 2;
    rules.push_back(rule);
  }
  LinearClassifier classifier;
  ASSERT_TRUE(classifier.build(rules).ok());
  std::map<uint32_t, uint32_t> seen;
  for (int round = 0; round < 20000; ++round) {
    const FlowKey tuple{Be32::from_host(0x0a000000 + small(64)),
                        Be32::from_host(0x0a000000 + small(64)),
                        Be16::from_host(static_cast<uint16_t>(small(8))),
                        Be16::from_host(static_cast<uint16_t>(small(12))),
                        static_cast<uint8_t>(small(2) == 0 ? 6 : 17),
                        static_cast<Side>(small(2)),
                        0};
    uint32_t expected = kNoRule;
    for (auto rule = rules.rbegin(); rule != rules.rend(); ++rule) {
      const bool src = rule->src_bits == 0 || tuple.src.host() >> (32 - rule->src_bits) ==
                                                  rule->src.host() >> (32 - rule->src_bits);
      const bool dst = rule->dst_bits == 0 || tuple.dst.host() >> (32 - rule->dst_bits) ==
                                                  rule->dst.host() >> (32 - rule->dst_bits);
      const bool port = tuple.dst_port.host() >= rule->dst_port_first &&
                        tuple.dst_port.host() <= rule->dst_port_last;
      const bool protocol = rule->protocol == 0 || rule->protocol == tuple.protocol;
      const bool side =
          rule->direction == RuleDirection::kAny ||
          (rule->direction == RuleDirection::kFromInside && tuple.side == Side::kInside) ||
          (rule->direction == RuleDirection::kFromOutside && tuple.side == Side::kOutside);
      if (src && dst && port && protocol && side) expected = rule->rule;
    }
    uint32_t found = 0;
    classifier.classify({&tuple, 1}, {&found, 1});
    ASSERT_EQ(found, expected) << "round " << round;
    ++seen[found];
  }
  EXPECT_GT(seen.size(), 15U);
  EXPECT_GT(seen[kNoRule], 100U);
}

TEST(Firewall, CountsHitsOfEachRule) {
  Firewall::Config config;
  auto* rule = config.add_rules();
  rule->set_name("tcp"), rule->set_action("accept"), rule->set_protocol("tcp");
  rule = config.add_rules();
  rule->set_name("udp"), rule->set_action("drop"), rule->set_protocol("udp");
  FunctionContext context{"config", [] { return std::make_unique<LinearClassifier>(); }};
  const auto firewall = Firewall::create(config, context);
  ASSERT_TRUE(firewall.ok());
  Firewall::Soft soft = firewall->make_soft();
  PoolDirectory directory;
  auto pool = open_pool(directory, Pool::minimum_bytes());
  ASSERT_TRUE(pool->attach_chain("test", 16).ok());
  FlowTable table(*pool, 0, 0);
  const auto open = [&](uint8_t protocol) {
    FlowKey key = inside_key(1);
    key.protocol = protocol;
    OpeningFlow flow{key, Side::kInside, 0, table};
    NewFlow<Firewall> typed(flow, 0);
    return firewall->open(typed, soft).refused;
  };
  EXPECT_EQ(open(kProtocolTcp), DropReason::kNone);
  EXPECT_EQ(open(kProtocolTcp), DropReason::kNone);
  EXPECT_EQ(open(kProtocolUdp), DropReason::kFirewallDenied);
  EXPECT_EQ(open(kProtocolIcmp), DropReason::kFirewallDenied);
  EXPECT_EQ(soft.hits, (std::vector<uint64_t>{2, 1}));
  EXPECT_EQ(soft.unmatched, 1U);
}

}  // namespace
}  // namespace flowkeep
