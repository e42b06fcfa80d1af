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

constexpr char kPeering[] = R"("untranslated":[{"prefix":"198.51.100.8"},
    {"prefix":"198.51.100.0/24","protocol":"tcp","ports":{"first":25,"last":25}}])";

TEST_P(Rfc6888, Req6_TranslationIsOffForDestinations) {
  harness(nat(kPeering));
  const auto passes_as_it_is = [&](Side side, const PacketBuilder& packet) {
    const Departure departure = harness().send(side, packet.build());
    EXPECT_EQ(drop_reason_name(departure.reason), "none");
    EXPECT_EQ(departure.frame, packet.build());
  };
  passes_as_it_is(Side::kInside, udp(kHost, 2000, kOtherRemote));
  passes_as_it_is(Side::kOutside, udp(kOtherRemote, 5000, kHost, 2000));
  passes_as_it_is(Side::kInside, tcp(kHost, 2000, kRemote, 25, kTcpSyn));
  passes_as_it_is(Side::kOutside, tcp(kRemote, 25, kHost, 2000, kTcpSyn | kTcpAck));
  passes_as_it_is(Side::kInside, PacketBuilder::echo_request(kHost, kOtherRemote, 7));
  passes_as_it_is(Side::kOutside, PacketBuilder::echo_reply(kOtherRemote, kHost, 7));
  // Of a protocol that is translated nowhere.
  passes_as_it_is(Side::kInside, udp(kHost, 2000, kOtherRemote).protocol(50));
  // The same endpoint towards others, before and after.
  EXPECT_EQ(external_of(udp(kHost, 2000)).first, kExternal);
  EXPECT_EQ(external_of(tcp(kHost, 2000, kRemote, 26, kTcpSyn)).first, kExternal);
  passes_as_it_is(Side::kInside, udp(kHost, 2000, kOtherRemote));
  passes_as_it_is(Side::kInside, udp(kHost, 2000, kOtherRemote, 5001));
}

// A NAT is no filter for them: that is the firewall's.
TEST_P(Rfc6888, Req6_WhoIsNotTranslatedMayBeginFromOutside) {
  harness(nat(kPeering));
  EXPECT_EQ(in(udp(kOtherRemote, 5000, kHost, 2000)), "none");
  EXPECT_EQ(out(udp(kHost, 2000, kOtherRemote)), "none");
  EXPECT_EQ(harness().flows(), 1U);
  EXPECT_EQ(in(udp(kRemote, 5000, kHost, 2000)), "nat_no_mapping");
  EXPECT_EQ(in(tcp(kRemote, 25, kOtherHost, 3000, kTcpSyn)), "none");
  EXPECT_EQ(in(tcp(kRemote, 26, kOtherHost, 3000, kTcpSyn)), "nat_no_mapping");
}

TEST_P(Rfc6888, Req6_WithoutItNothingPassesToAnInsideAddress) {
  EXPECT_EQ(in(udp(kOtherRemote, 5000, kHost, 2000)), "not_for_us");
}

TEST_P(Rfc6888, Req6_ErrorsAboutUntranslatedFlowsPassAsTheyAre) {
  harness(nat(kPeering));
  const PacketBuilder sent = udp(kHost, 2000, kOtherRemote);
  EXPECT_EQ(out(sent), "none");
  const Bytes error =
      PacketBuilder::icmp_error(kOutsideRouter, kHost, kIcmpUnreachable, 1, sent.build()).build();
  const Departure departure = harness().send(Side::kOutside, error);
  EXPECT_EQ(drop_reason_name(departure.reason), "none");
  EXPECT_EQ(departure.frame, error);
}

// Nobody's mapping: neither limits nor blocks know of it, and no lease is left.
TEST_P(Rfc6888, Req6_UntranslatedFlowsCountForNobody) {
  harness(nat(kPeering + std::string(R"(,"mappings_per_host":2,"filtering":"address_dependent")")));
  for (uint16_t port = 2000; port < 2010; ++port) {
    EXPECT_EQ(out(udp(kHost, port, kOtherRemote)), "none");
  }
  EXPECT_EQ(keyed_records(), 0U);
  EXPECT_EQ(leases(), 0U);
  EXPECT_EQ(out(udp(kHost, 3000)), "none");
  EXPECT_EQ(out(udp(kHost, 3001)), "none");
  EXPECT_EQ(out(udp(kHost, 3002)), "nat_host_limit");
  pass_time(301);
  EXPECT_EQ(harness().flows(), 0U);
  EXPECT_EQ(keyed_records(), 0U);
}

TEST_P(Rfc6888, Req6_AChangeEndsWhatIsNotAsItWouldBeNow) {
  harness(nat());
  EXPECT_EQ(external_of(udp(kHost, 2000, kOtherRemote)).first, kExternal);
  const auto other = external_of(udp(kHost, 2001));
  harness().apply(nat(kPeering, 2));
  const Bytes packet = udp(kHost, 2000, kOtherRemote).build();
  EXPECT_EQ(harness().send(Side::kInside, packet).frame, packet);
  EXPECT_EQ(external_of(udp(kHost, 2001)), other);
  harness().apply(nat("", 3));
  EXPECT_EQ(external_of(udp(kHost, 2000, kOtherRemote)).first, kExternal);
  EXPECT_EQ(external_of(udp(kHost, 2001)), other);
  EXPECT_EQ(harness().flows(), 2U);
}

TEST(Untranslated, ConfigurationIsChecked) {
  const struct {
    const char* fields;
    const char* error;
  } kCases[] = {
      {R"({"prefix":"198.51.100"})",
       R"([0].prefix: "198.51.100" is not accepted; accepted: a prefix such as 192.0.2.0/24)"},
      {R"({"prefix":"203.0.113.0/24"})",
       R"([0].prefix: "203.0.113.0/24" is not accepted; accepted: a prefix without the external address 203.0.113.10)"},
      {R"({"prefix":"198.51.100.0/24","protocol":"sctp"})",
       R"([0].protocol: "sctp" is not accepted; accepted: tcp, udp, icmp)"},
      {R"({"prefix":"198.51.100.0/24","ports":{"first":1,"last":2}})",
       "[0].ports: are given without protocol tcp or udp"},
      {R"({"prefix":"198.51.100.0/24","protocol":"tcp","ports":{"first":9,"last":2}})",
       "[0].ports: 9 to 2 is no range of ports; accepted: 1 to 65535"},
      {R"({"prefix":"198.51.100.0/24","protocol":"tcp","ports":{"first":0,"last":2}})",
       "[0].ports: 0 to 2 is no range of ports; accepted: 1 to 65535"},
      {R"({"prefix":"198.51.100.0/24","protocol":"tcp","ports":{"first":1,"last":65536}})",
       "[0].ports: 1 to 65536 is no range of ports; accepted: 1 to 65535"},
  };
  for (const auto& [fields, error] : kCases) {
    const auto valid =
        validate_chain({"test",
                        1,
                        {{"nat44", R"({"external_addresses":["203.0.113.10"],"untranslated":[)" +
                                       std::string(fields) + "]}"}}});
    ASSERT_FALSE(valid.ok()) << fields;
    EXPECT_EQ(valid.error().text(), "spec.functions[0].config.untranslated" + std::string(error));
  }
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
