#include "nfs/firewall/firewall.h"

#include <gtest/gtest.h>

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
INSTANTIATE_TEST_SUITE_P(Crashes, FirewallTest, testing::ValuesIn(kEveryMode));

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

// A packet has room for four counts.
TEST(FirewallChain, MoreFirewallsThanAPacketCanCountAtAreRefused) {
  ChainSpec spec{"test", 1, {}};
  const std::string rule = R"("rules":[{"name":"all","action":"accept"}])";
  for (int n = 0; n < 4; ++n) {
    spec.functions.push_back({"firewall", R"({"tcp_tracking":"off",)" + rule + "}"});
  }
  PoolDirectory directory;
  ChainHarness harness(spec, directory);
  EXPECT_EQ(harness.send(Side::kInside, syn("10.0.0.2", 1, "192.0.2.1", 2).build()).reason,
            DropReason::kNone);
  EXPECT_EQ(harness.counted().size(), 4U);
  spec.functions.push_back(spec.functions[0]);
  const auto refused = validate_chain(spec);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().field, "spec.functions[4].type");
  EXPECT_NE(refused.error().message.find("accepted: at most 4"), std::string::npos);
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

}  // namespace
}  // namespace flowkeep
