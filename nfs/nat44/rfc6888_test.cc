// RFC 6888 (carrier-grade NAT) and RFC 7422 (deterministic blocks), requirement by requirement:
// docs/nat44.md.
#include <map>
#include <set>

#include "nfs/nat44/nat_fixture.h"

namespace flowkeep {
namespace {

class Rfc6888 : public NatTest {
 protected:
  static std::string host(int n) {
    return "10.1." + std::to_string(n / 200) + "." + std::to_string(n % 200 + 1);
  }
};
INSTANTIATE_TEST_SUITE_P(Crashes, Rfc6888, testing::ValuesIn(kEveryMode));

constexpr char kBlocks[] = R"("port_blocks":{"ports":128,"blocks_per_host":2})";

// DCCP, GRE, ESP, SCTP: nothing leaves with an inside address.
TEST_P(Rfc6888, Req1_WhatIsNotTranslatedDoesNotPass) {
  for (const int protocol : {33, 47, 50, 132}) {
    EXPECT_EQ(out(udp(kHost, 2000).protocol(static_cast<uint8_t>(protocol))),
              "nat_unsupported_protocol");
  }
  EXPECT_EQ(harness().flows(), 0U);
}

TEST_P(Rfc6888, Req2_PoolingIsPairedByDefault) {
  harness(with(R"(["203.0.113.10","203.0.113.11"])"));
  std::set<std::string> addresses;
  for (uint16_t port = 2000; port < 2200; ++port) {
    addresses.insert(external_of(udp(kHost, port)).first);
  }
  EXPECT_EQ(addresses.size(), 1U);
}

TEST_P(Rfc6888, Req2_PoolingCanBeRelaxed) {
  harness(with(R"(["203.0.113.10","203.0.113.11"])",
               R"("pooling":"paired_if_possible","port_range":{"first":2048,"last":2111})"));
  std::set<std::string> addresses;
  for (uint16_t port = 1000; port < 4000; ++port) {
    const PacketBuilder packet = udp(kHost, port);
    if (out(packet) == "none") addresses.insert(external_of(packet).first);
  }
  EXPECT_EQ(addresses.size(), 2U);
}

TEST_P(Rfc6888, Req3_ExternalAddressesNeedNotBeContiguous) {
  harness(with(R"(["203.0.113.10","198.18.7.99"])"));
  std::set<std::string> addresses;
  for (int n = 0; n < 40; ++n) addresses.insert(external_of(udp(host(n), 2000)).first);
  EXPECT_EQ(addresses, (std::set<std::string>{"198.18.7.99", "203.0.113.10"}));
}

TEST_P(Rfc6888, Req4_MappingsOfAHostAreLimited) {
  harness(nat(R"("mappings_per_host":10)"));
  for (uint16_t port = 2000; port < 2020; ++port) {
    EXPECT_EQ(out(udp(kHost, port)), port < 2010 ? "none" : "nat_host_limit");
  }
  EXPECT_EQ(out(udp(kHost, 2000, kOtherRemote)), "none") << "no new mapping";
  EXPECT_EQ(out(udp(kOtherHost, 2000)), "none");
  EXPECT_EQ(out(tcp(kHost, 2000, kRemote, 80, kTcpSyn)), "nat_host_limit");
  pass_time(301);
  EXPECT_EQ(keyed_records(), 0U);
  EXPECT_EQ(out(udp(kHost, 2015)), "none");
}

TEST_P(Rfc6888, Req4_TheLimitCountsMappingsNotFlows) {
  harness(nat(R"("mappings_per_host":2)"));
  for (uint16_t to = 1; to <= 30; ++to) EXPECT_EQ(out(udp(kHost, 2000, kRemote, to)), "none");
  EXPECT_EQ(out(udp(kHost, 2001)), "none");
  EXPECT_EQ(out(udp(kHost, 2002)), "nat_host_limit");
  harness().now_s += 200;
  EXPECT_EQ(out(udp(kHost, 2000, kRemote, 7)), "none");
  pass_time(200);  // one flow of the first mapping is left
  EXPECT_EQ(harness().flows(), 1U);
  EXPECT_EQ(out(udp(kHost, 2002)), "none");
  EXPECT_EQ(out(udp(kHost, 2003)), "nat_host_limit");
}

TEST_P(Rfc6888, Req7_FilteringCanBeEndpointIndependent) {
  harness(nat(R"("filtering":"endpoint_independent",)" + std::string(kBlocks)));
  const ExternalEndpoint external = external_of(udp(kHost, 40000));
  EXPECT_EQ(in(udp(kOtherRemote, 9, external.first, external.second)), "none");
}

TEST_P(Rfc6888, Req11_WithoutPortsTheNewMappingIsRefusedAndTheOthersGoOn) {
  harness(nat(kOneUnit));
  std::vector<uint16_t> open;
  for (uint16_t port = 1000; port < 3000; ++port) {
    const std::string_view reason = out(udp(kHost, port));
    EXPECT_TRUE(reason == "none" || reason == "nat_ports_exhausted") << reason;
    if (reason == "none") open.push_back(port);
  }
  ASSERT_EQ(open.size(), 64U);
  for (const uint16_t port : open) {
    EXPECT_EQ(out(udp(kHost, port)), "none");
    EXPECT_EQ(out(udp(kHost, port, kOtherRemote)), "none");
  }
}

// What one bucket has leased is another's when it is not used any more.
TEST_P(Rfc6888, Req11_ExhaustionEndsByItself) {
  harness(nat(R"("port_range":{"first":2048,"last":2175})"));
  const auto opened_by = [this](const std::string& from) {
    uint32_t opened = 0;
    for (uint16_t port = 1000; port < 4000; ++port) {
      opened += out(udp(from, port)) == "none" ? 1 : 0;
    }
    return opened;
  };
  EXPECT_EQ(opened_by(kHost), 128U);
  EXPECT_EQ(leases(), 2U);
  EXPECT_EQ(out(udp(kOtherHost, 999)), "nat_ports_exhausted");
  pass_time(301);
  EXPECT_EQ(leases(), 0U);
  EXPECT_EQ(opened_by(kOtherHost), 128U);
}

TEST_P(Rfc6888, Req13_BlocksAreAssignedWhenNeededAndGivenBack) {
  harness(nat(kBlocks));
  for (uint16_t port = 2000; port < 2100; ++port) EXPECT_EQ(out(udp(kHost, port)), "none");
  EXPECT_EQ(leases(), 2U);
  for (uint16_t port = 2100; port < 2256; ++port) EXPECT_EQ(out(udp(kHost, port)), "none");
  EXPECT_EQ(leases(), 4U);
  EXPECT_EQ(out(udp(kHost, 2256)), "nat_ports_exhausted");
  EXPECT_EQ(out(udp(kOtherHost, 2256)), "none");
  EXPECT_EQ(leases(), 6U);
  pass_time(301);
  EXPECT_EQ(keyed_records(), 0U);
  EXPECT_EQ(leases(), 0U);
  EXPECT_EQ(out(udp(kHost, 2256)), "none");
}

TEST_P(Rfc6888, Req12_BlocksAreLoggedAndDestinationsAreNot) {
  harness(nat(kBlocks));
  const uint16_t port = port_of(udp(kHost, 2000));
  harness().now_s += 100;
  EXPECT_EQ(out(udp(kHost, 2001, kOtherRemote)), "none");
  pass_time(302);
  ASSERT_EQ(harness().told().size(), 2U);
  const auto& [assigned, begin] = harness().told()[0];
  const auto& [released, end] = harness().told()[1];
  EXPECT_EQ(assigned, "nat44.blocks_assigned");
  EXPECT_EQ(released, "nat44.blocks_released");
  EXPECT_EQ(end.values[1], 402U);
  for (const FunctionEvent& event : {begin, end}) {
    EXPECT_EQ(to_string(event.key.src), kHost);
    EXPECT_EQ(to_string(event.key.dst), kExternal);
    EXPECT_LE(event.key.dst_port.host(), port);
    EXPECT_EQ(event.values[0], event.key.dst_port.host() + 127u);
    EXPECT_GE(event.values[0], port);
  }
  EXPECT_EQ(harness().counted().at("nat44.mappings"), 2U);
}

TEST_P(Rfc6888, Req14_AHostsPortsLieInItsBlocksAndNobodyElses) {
  harness(nat(kBlocks));
  std::map<uint32_t, std::string> owner;  // block: host
  std::map<std::string, std::set<uint32_t>> blocks;
  for (int n = 0; n < 60; ++n) {
    for (uint16_t port = 2000; port < 2150; port += 10) {
      const uint32_t block = (port_of(udp(host(n), port)) - 1024) / 128;
      EXPECT_EQ(owner.emplace(block, host(n)).first->second, host(n));
      blocks[host(n)].insert(block);
    }
    EXPECT_EQ(blocks[host(n)].size(), 1U);
  }
}

TEST_P(Rfc6888, Req13_PortsOfEachProtocolCountAlone) {
  harness(nat(R"("port_blocks":{"ports":64})"));
  for (uint16_t port = 2000; port < 2064; ++port) {
    EXPECT_EQ(out(udp(kHost, port)), "none");
    EXPECT_EQ(out(tcp(kHost, port, kRemote, 80, kTcpSyn)), "none");
    EXPECT_EQ(out(PacketBuilder::echo_request(kHost, kRemote, port)), "none");
  }
  EXPECT_EQ(out(udp(kHost, 2064)), "nat_ports_exhausted");
  EXPECT_EQ(leases(), 1U);
}

// Whoever knows a host's external ports up to now does not know how far away the next one is. The
// host is of one bucket, so that a counter would show.
TEST_P(Rfc6888, Req15_PortsAreHardToGuess) {
  harness(nat(R"("mappings_per_host":1000)"));
  std::set<int> steps;
  uint16_t last = port_of(udp(kHost, 2000));
  for (uint16_t port = 2002; port < 2200; port += 2) {
    const uint16_t next = port_of(udp(kHost, port));
    steps.insert(next - last);
    last = next;
  }
  EXPECT_GT(steps.size(), 20U);
}

// ---- Static port forwards.

constexpr char kForward[] =
    R"("port_forwards":[{"protocol":"tcp","external_address":"203.0.113.10","external_port":2050,)"
    R"("inside_address":"10.0.0.2","inside_port":80}],"port_range":{"first":2048,"last":2111})";

TEST_P(Rfc6888, Req9_AForwardLetsAnybodyBegin) {
  harness(nat(kForward));
  const Departure syn =
      harness().send(Side::kOutside, tcp(kRemote, 999, kExternal, 2050, kTcpSyn).build());
  EXPECT_EQ(syn.frame, tcp(kRemote, 999, kHost, 80, kTcpSyn).build());
  EXPECT_EQ(external_of(tcp(kHost, 80, kRemote, 999, kTcpSyn | kTcpAck)),
            ExternalEndpoint(kExternal, 2050));
  EXPECT_EQ(in(tcp(kOtherRemote, 7, kExternal, 2050, kTcpSyn)), "none");
  EXPECT_NE(in(udp(kOtherRemote, 7, kExternal, 2050)), "none");
}

TEST_P(Rfc6888, Req9_AForwardedPortIsNobodyElses) {
  harness(nat(kForward));
  std::set<uint16_t> given;
  for (uint16_t port = 1000; port < 3000; ++port) {
    const PacketBuilder syn = tcp(kOtherHost, port, kRemote, 80, kTcpSyn);
    if (out(syn) == "none") given.insert(port_of(syn));
  }
  EXPECT_EQ(given.size(), 63U);
  EXPECT_FALSE(given.contains(2050));
  EXPECT_EQ(port_of(tcp(kHost, 80, kRemote, 80, kTcpSyn)), 2050);
}

// ---- RFC 7422.

TEST_P(Rfc6888, Deterministic_AHostsPortsFollowFromItsAddress) {
  harness(
      with(R"(["203.0.113.10","203.0.113.11"])", R"("deterministic":{"inside":"10.0.0.0/24"})"));
  const auto map = DeterministicMap::of(*parse_ipv4_prefix("10.0.0.0/24"), 2, UnitRange{});
  ASSERT_TRUE(map);
  for (int n = 1; n < 255; n += 23) {
    const std::string from = "10.0.0." + std::to_string(n);
    const PortUnits units = *map->units_of(*parse_ipv4_address(from));
    for (uint16_t port = 2000; port < 2040; ++port) {
      const auto [address, external] = external_of(udp(from, port));
      EXPECT_EQ(address, units.address == 0 ? "203.0.113.10" : "203.0.113.11");
      EXPECT_TRUE(units.contains(units.address, external / 64u));
      EXPECT_EQ(map->host_of(units.address, Be16::from_host(external)), parse_ipv4_address(from));
    }
  }
  EXPECT_EQ(out(udp("10.0.1.1", 2000)), "nat_ports_exhausted") << "not of the prefix";
}

TEST(Deterministic, BothWaysOfTheAlgorithmAgreeForEachHostAndPort) {
  for (const char* prefix : {"10.0.0.0/22", "10.0.0.0/29", "192.168.7.0/25", "10.1.2.3"}) {
    for (const uint32_t addresses : {1u, 2u, 3u, 8u}) {
      const Ipv4Prefix inside = *parse_ipv4_prefix(prefix);
      const auto map = DeterministicMap::of(inside, addresses, UnitRange{});
      if (!map) continue;
      std::set<std::pair<uint32_t, uint32_t>> used;
      for (uint64_t n = 0; n < uint64_t{1} << (32 - inside.bits); ++n) {
        const Be32 host = Be32::from_host(inside.address.host() + static_cast<uint32_t>(n));
        const auto units = map->units_of(host);
        ASSERT_TRUE(units);
        ASSERT_LT(units->address, addresses);
        for (uint32_t unit = units->first; unit < units->first + units->count; ++unit) {
          ASSERT_TRUE(UnitRange{}.contains(unit));
          ASSERT_TRUE(used.insert({units->address, unit}).second);
          ASSERT_EQ(
              map->host_of(units->address, Be16::from_host(static_cast<uint16_t>(unit * 64 + 5))),
              host);
        }
      }
    }
  }
}

TEST(Deterministic, TooManyHostsAreRefused) {
  EXPECT_FALSE(DeterministicMap::of(*parse_ipv4_prefix("10.0.0.0/21"), 2, UnitRange{}));
  EXPECT_TRUE(DeterministicMap::of(*parse_ipv4_prefix("10.0.0.0/22"), 2, UnitRange{}));
}

}  // namespace
}  // namespace flowkeep
