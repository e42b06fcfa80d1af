// RFC 7857 (updates of 4787, 5382 and 5508), requirement by requirement: docs/nat44.md. And what a
// change of the configuration does to mappings.
#include <set>

#include "nfs/nat44/nat_fixture.h"

namespace flowkeep {
namespace {

class Rfc7857 : public NatTest {};
INSTANTIATE_TEST_SUITE_P(Crashes, Rfc7857, testing::ValuesIn(kEveryMode));

TEST_P(Rfc7857, Sec2_1_ATransitoryConnectionIdlesForFourMinutes) {
  connect();
  EXPECT_EQ(out(tcp(kHost, 40000, kRemote, 80, kTcpFin | kTcpAck)), "none");
  pass_time(240);
  EXPECT_EQ(harness().flows(), 1U);
  pass_time(1);
  EXPECT_EQ(harness().flows(), 0U);
}

// A reset makes the connection transitory and does not end its mapping at once.
TEST_P(Rfc7857, Sec2_2_AResetLeavesTheMappingForFourMinutes) {
  for (const Side side : {Side::kInside, Side::kOutside}) {
    const uint16_t port = connect();
    if (side == Side::kInside) {
      EXPECT_EQ(out(tcp(kHost, 40000, kRemote, 80, kTcpRst)), "none");
    } else {
      EXPECT_EQ(in(tcp(kRemote, 80, kExternal, port, kTcpRst)), "none");
    }
    pass_time(240);
    EXPECT_EQ(in(tcp(kRemote, 80, kExternal, port, kTcpAck)), "none");
    EXPECT_EQ(port_of(tcp(kHost, 40000, kOtherRemote, 80, kTcpSyn)), port);
    pass_time(241);
    EXPECT_EQ(harness().flows(), 0U);
  }
}

// The same ports for each protocol.
TEST_P(Rfc7857, Sec3_PortsDoNotOverlap) {
  expect_no_port_is_overloaded([](uint16_t port) { return udp(kHost, port, kRemote, port); });
  expect_no_port_is_overloaded(
      [](uint16_t port) { return tcp(kHost, port, kRemote, port, kTcpSyn); });
}

TEST_P(Rfc7857, Sec4_AnExhaustedPairedAddressRefusesOrNotAsConfigured) {
  const char* addresses = R"(["203.0.113.10","203.0.113.11"])";
  harness(with(addresses, kOneUnit));
  const auto opened = [this] {
    uint32_t count = 0;
    for (uint16_t port = 1000; port < 4000; ++port) count += out(udp(kHost, port)) == "none";
    return count;
  };
  EXPECT_EQ(opened(), 64U);
  EXPECT_EQ(harness().flows(), 64U);
  harness().apply(with(addresses, std::string(kOneUnit) + R"(,"pooling":"paired_if_possible")", 2));
  EXPECT_EQ(opened(), 128U);
  EXPECT_EQ(harness().flows(), 128U);
}

TEST_P(Rfc7857, Sec5_MappingsAreOfOneProtocol) {
  harness(nat(R"("preserve_ports":true,"mappings_per_host":1000)"));
  EXPECT_EQ(port_of(udp(kHost, 40000)), 40000);
  EXPECT_EQ(port_of(tcp(kHost, 40000, kRemote, 80, kTcpSyn)), 40000);
}

TEST_P(Rfc7857, Sec6_FilteringIsOfOneProtocol) {
  harness(nat(R"("filtering":"endpoint_independent","preserve_ports":true)"));
  EXPECT_EQ(port_of(udp(kHost, 40000)), 40000);
  EXPECT_EQ(in(udp(kOtherRemote, 1, kExternal, 40000)), "none");
  EXPECT_EQ(in(tcp(kOtherRemote, 1, kExternal, 40000, kTcpSyn)), "nat_no_mapping");
}

TEST_P(Rfc7857, Sec7_1_AnErrorRefreshesNoMapping) {
  const uint16_t port = port_of(udp(kHost, 40000));
  const Bytes answer = udp(kRemote, 5000, kHost, 40000).build();
  EXPECT_NE(port, 0);
  harness().now_s += 290;
  EXPECT_EQ(send(Side::kInside, PacketBuilder::icmp_error(kHost, kRemote, 3, 3, answer).build()),
            "none");
  pass_time(11);
  EXPECT_EQ(harness().flows(), 0U);
}

TEST_P(Rfc7857, Sec8_ParityIsKeptForUdp) {
  for (uint16_t port = 2000; port < 2100; ++port) {
    EXPECT_EQ(port_of(udp(kHost, port)) % 2, port % 2);
  }
}

// Within a block of ports too: each of 30 new mappings lies another way from the one before.
TEST_P(Rfc7857, Sec9_PortsAreSpread) {
  harness(nat(R"("port_blocks":{"ports":64})"));
  std::set<int> steps;
  uint16_t last = port_of(udp(kHost, 2000));
  for (uint16_t port = 2002; port < 2060; port += 2) {
    const uint16_t next = port_of(udp(kHost, port));
    steps.insert(next - last);
    last = next;
  }
  EXPECT_GT(steps.size(), 10U);
}

TEST_P(Rfc7857, Sec11_AnEchoIdlesForAMinute) {
  const auto ping = PacketBuilder::echo_request(kHost, kRemote, 77);
  EXPECT_EQ(out(ping), "none");
  pass_time(60);
  EXPECT_EQ(harness().flows(), 1U);
  pass_time(1);
  EXPECT_EQ(harness().flows(), 0U);
}

// ---- Another configuration.

TEST_P(Rfc7857, Revision_WhatIsStillAllowedGoesOn) {
  harness(with(R"(["203.0.113.10","203.0.113.11"])"));
  const ExternalEndpoint external = external_of(udp(kHost, 40000));
  harness().apply(with(R"(["203.0.113.10","203.0.113.11"])",
                       R"("filtering":"endpoint_independent","preserve_ports":true)", 2));
  EXPECT_EQ(external_of(udp(kHost, 40000)), external);
  EXPECT_EQ(external_of(udp(kHost, 40000, kOtherRemote)), external);
}

// Also mappings that no packet reminds of.
TEST_P(Rfc7857, Revision_AStaleMappingEnds) {
  harness(nat());
  const uint16_t port = port_of(udp(kHost, 40000));
  harness().apply(with(R"(["203.0.113.99"])", "", 2));
  harness().sweep_all();
  EXPECT_EQ(harness().flows(), 0U);
  EXPECT_EQ(external_of(udp(kHost, 40000)).first, "203.0.113.99");
  EXPECT_NE(in(udp(kRemote, 5000, kExternal, port)), "none");
}

TEST_P(Rfc7857, Revision_ANarrowerRangeEndsWhatLiesOutside) {
  const auto lies_inside = [](uint16_t port) { return 2048 <= port && port <= 2111; };
  harness(nat(R"("mappings_per_host":1000)"));
  uint64_t inside = 0;
  for (uint16_t port = 2000; port < 2050; ++port) inside += lies_inside(port_of(udp(kHost, port)));
  harness().apply(nat(kOneUnit + std::string(R"(,"mappings_per_host":1000)"), 2));
  harness().sweep_all();
  EXPECT_EQ(harness().flows(), inside);
  for (uint16_t port = 2000; port < 2050; ++port) {
    EXPECT_TRUE(lies_inside(port_of(udp(kHost, port))));
  }
}

TEST_P(Rfc7857, Revision_ANewForwardTakesItsPort) {
  harness(nat(R"("preserve_ports":true)"));
  EXPECT_EQ(port_of(udp(kOtherHost, 40000)), 40000);
  harness().apply(nat(
      R"("port_forwards":[{"protocol":"udp","external_address":"203.0.113.10","external_port":40000,)"
      R"("inside_address":"10.0.0.2","inside_port":53}])",
      2));
  harness().sweep_all();
  EXPECT_EQ(harness().flows(), 0U);
  EXPECT_NE(port_of(udp(kOtherHost, 40000)), 40000);
  const Departure departure =
      harness().send(Side::kOutside, udp(kRemote, 1, kExternal, 40000).build());
  EXPECT_EQ(departure.frame, udp(kRemote, 1, kHost, 53).build());
}

TEST_P(Rfc7857, Revision_DeterministicBlocksEndOtherMappings) {
  harness(nat(R"("mappings_per_host":100)"));
  for (uint16_t port = 2000; port < 2010; ++port) EXPECT_EQ(out(udp(kHost, port)), "none");
  harness().apply(nat(R"("deterministic":{"inside":"10.0.0.0/24"})", 2));
  harness().sweep_all();
  harness().sweep_all();
  const auto map = DeterministicMap::of(*parse_ipv4_prefix("10.0.0.0/24"), 1, UnitRange{});
  for (uint16_t port = 2000; port < 2010; ++port) {
    EXPECT_EQ(map->host_of(0, Be16::from_host(port_of(udp(kHost, port)))),
              parse_ipv4_address(kHost));
  }
}

}  // namespace
}  // namespace flowkeep
