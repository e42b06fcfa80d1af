// RFC 4787 (UDP), requirement by requirement: docs/nat44.md.
#include <set>

#include "nfs/nat44/nat_fixture.h"

namespace flowkeep {
namespace {

class Rfc4787 : public NatTest {};
INSTANTIATE_TEST_SUITE_P(Crashes, Rfc4787, testing::ValuesIn(kEveryMode));

constexpr char kEndpointIndependent[] = R"("filtering":"endpoint_independent")";
constexpr char kAddressDependent[] = R"("filtering":"address_dependent")";
constexpr char kTwoAddresses[] = R"(["203.0.113.10","203.0.113.11"])";

TEST_P(Rfc4787, Req1_MappingIsEndpointIndependent) {
  const ExternalEndpoint external = external_of(udp(kHost, 40000));
  for (uint16_t port = 1; port <= 50; ++port) {
    EXPECT_EQ(external_of(udp(kHost, 40000, kRemote, port)), external);
    EXPECT_EQ(external_of(udp(kHost, 40000, kOtherRemote, port)), external);
  }
}

TEST_P(Rfc4787, Req3_NoPortIsOverloaded) {
  expect_no_port_is_overloaded([](uint16_t port) { return udp(kHost, port, kRemote, port); });
}

TEST_P(Rfc4787, Req2_AHostIsPairedWithOneAddress) {
  harness(with(R"(["203.0.113.10","203.0.113.11","203.0.113.12"])"));
  std::set<std::string> all;
  for (int host = 1; host <= 40; ++host) {
    const std::string source = "10.0.1." + std::to_string(host);
    std::set<std::string> of_host;
    for (uint16_t port = 2000; port < 2010; ++port) {
      of_host.insert(external_of(udp(source, port)).first);
      of_host.insert(external_of(PacketBuilder::echo_request(source, kRemote, port)).first);
      of_host.insert(external_of(tcp(source, port, kRemote, 80, kTcpSyn)).first);
    }
    EXPECT_EQ(of_host.size(), 1U);
    all.insert(*of_host.begin());
  }
  EXPECT_EQ(all.size(), 3U);
}

TEST_P(Rfc4787, Req2_PairingHoldsWhenTheAddressIsExhausted) {
  harness(with(kTwoAddresses, kOneUnit));
  std::set<std::string> addresses;
  std::set<std::string_view> reasons;
  for (uint16_t port = 1000; port < 3000; ++port) {
    const PacketBuilder packet = udp(kHost, port);
    reasons.insert(out(packet));
    if (out(packet) == "none") addresses.insert(external_of(packet).first);
  }
  EXPECT_EQ(addresses.size(), 1U);
  EXPECT_EQ(reasons, (std::set<std::string_view>{"nat_ports_exhausted", "none"}));
}

TEST_P(Rfc4787, Req3_PortsArePreservedIfAskedFor) {
  // Steered by host, so that a host's neighbouring ports are of one bucket's units.
  harness(nat(R"("preserve_ports":true,"mappings_per_host":1000)"));
  EXPECT_EQ(port_of(udp(kHost, 40000)), 40000);
  EXPECT_NE(port_of(udp(kOtherHost, 40000)), 40000) << "another host has it";
  EXPECT_EQ(port_of(tcp(kHost, 40001, kRemote, 80, kTcpSyn)), 40001);
}

// The lowest range there is, up to its last port: what lies before it are the well-known ports. A
// host's own low port is not preserved either.
TEST_P(Rfc4787, Req3a_UserPortsStayUserPorts) {
  harness(nat(
      R"("port_range":{"first":1024,"last":1151},"preserve_ports":true,"mappings_per_host":1000)"));
  std::set<uint16_t> given;
  for (uint16_t port = 960; port < 1200; ++port) {
    const PacketBuilder packet = udp(kHost, port);
    if (out(packet) == "none") given.insert(port_of(packet));
  }
  EXPECT_EQ(given.size(), 128U);
  EXPECT_EQ(*given.begin(), 1024);
  EXPECT_EQ(*given.rbegin(), 1151);
}

TEST_P(Rfc4787, Req4_ParityIsKept) {
  for (uint16_t port = 2000; port < 2400; ++port) {
    EXPECT_EQ(port_of(udp(kHost, port)) % 2, port % 2);
  }
}

TEST_P(Rfc4787, Req5_AMappingLivesForFiveMinutes) {
  const uint16_t port = port_of(udp(kHost, 40000));
  pass_time(300);
  EXPECT_EQ(in(udp(kRemote, 5000, kExternal, port)), "none");
  pass_time(301);
  EXPECT_NE(in(udp(kRemote, 5000, kExternal, port)), "none");
}

TEST(Rfc4787Config, Req5_TheTimerIsConfigurableAndNotBelowTwoMinutes) {
  ChainSpec spec{"test", 1, {{"nat44", R"({"external_addresses":["203.0.113.10"]})"}}};
  spec.timeouts.udp_s = spec.timeouts.udp_opening_s = 120;
  EXPECT_TRUE(validate_chain(spec).ok());
  spec.timeouts.udp_s = 119;
  const auto refused = validate_chain(spec);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().field, "spec.timeouts.udp_s");
}

TEST_P(Rfc4787, Req6_OutboundPacketsRefresh) {
  const uint16_t port = port_of(udp(kHost, 40000));
  for (int i = 0; i < 5; ++i) {
    pass_time(299);
    EXPECT_EQ(port_of(udp(kHost, 40000)), port);
  }
}

TEST_P(Rfc4787, Req6a_InboundPacketsOfAFlowRefresh) {
  const uint16_t port = port_of(udp(kHost, 40000));
  pass_time(200);
  EXPECT_EQ(in(udp(kRemote, 5000, kExternal, port)), "none");
  pass_time(200);  // 400 s after the last packet from the inside
  EXPECT_EQ(harness().flows(), 1U);
  EXPECT_EQ(port_of(udp(kHost, 40000, kOtherRemote)), port);
}

TEST_P(Rfc4787, Req8_AddressAndPortDependentFiltering) {
  const uint16_t port = port_of(udp(kHost, 40000));
  EXPECT_EQ(in(udp(kRemote, 5000, kExternal, port)), "none");
  EXPECT_EQ(in(udp(kRemote, 5001, kExternal, port)), "nat_filtered");
  EXPECT_EQ(in(udp(kOtherRemote, 5000, kExternal, port)), "nat_filtered");
}

TEST_P(Rfc4787, Req8_AddressDependentFiltering) {
  harness(nat(kAddressDependent));
  const uint16_t port = port_of(udp(kHost, 40000));
  EXPECT_EQ(in(udp(kRemote, 5001, kExternal, port)), "none");
  EXPECT_EQ(in(udp(kOtherRemote, 5000, kExternal, port)), "nat_filtered");
  EXPECT_EQ(out(udp(kHost, 40000, kOtherRemote)), "none");
  EXPECT_EQ(in(udp(kOtherRemote, 5009, kExternal, port)), "none");
  pass_time(301);
  EXPECT_EQ(keyed_records(), 0U);
}

TEST_P(Rfc4787, Req8_EndpointIndependentFiltering) {
  harness(nat(kEndpointIndependent));
  const uint16_t port = port_of(udp(kHost, 40000));
  const Departure departure =
      harness().send(Side::kOutside, udp(kOtherRemote, 777, kExternal, port).build());
  EXPECT_EQ(departure.frame, udp(kOtherRemote, 777, kHost, 40000).build());
  EXPECT_EQ(external_of(udp(kHost, 40000, kOtherRemote, 777)), ExternalEndpoint(kExternal, port));
  EXPECT_EQ(in(tcp(kOtherRemote, 777, kExternal, port, kTcpSyn)), "nat_no_mapping")
      << "a mapping is one protocol's";
}

TEST_P(Rfc4787, Req9_HairpinningPresentsTheExternalSource) {
  harness(nat(kEndpointIndependent));
  const uint16_t server = port_of(udp(kHost, 40000));
  const uint16_t client = port_of(udp(kOtherHost, 41000));
  const Departure there = hairpin(udp(kOtherHost, 41000, kExternal, server));
  EXPECT_EQ(there.frame, udp(kExternal, client, kHost, 40000).build());
  const Departure back = hairpin(udp(kHost, 40000, kExternal, client));
  EXPECT_EQ(back.frame, udp(kExternal, server, kOtherHost, 41000).build());
}

TEST_P(Rfc4787, Req9_HairpinningObeysTheFilter) {
  const uint16_t server = port_of(udp(kHost, 40000));
  const uint16_t client = port_of(udp(kOtherHost, 41000));
  EXPECT_EQ(hairpin(udp(kOtherHost, 41000, kExternal, server)).reason, DropReason::kNatFiltered);
  EXPECT_EQ(hairpin(udp(kHost, 40000, kExternal, client)).reason, DropReason::kNone);
  EXPECT_EQ(hairpin(udp(kOtherHost, 41000, kExternal, server)).reason, DropReason::kNone);
}

// The same endpoints have the same external endpoints, whatever else happens meanwhile.
TEST_P(Rfc4787, Req11_BehaviourIsDeterministic) {
  const ExternalEndpoint first = external_of(udp(kHost, 40000));
  for (uint16_t port = 2000; port < 2300; ++port) out(udp(kOtherHost, port));
  EXPECT_EQ(external_of(udp(kHost, 40000, kOtherRemote)), first);
  pass_time(250);
  EXPECT_EQ(external_of(udp(kHost, 40000, kRemote, 9)), first);
}

TEST_P(Rfc4787, Req12_ErrorsEndNoMapping) {
  const uint16_t port = port_of(udp(kHost, 40000));
  const Bytes sent = udp(kExternal, port).build();
  for (const uint8_t code : {uint8_t{0}, uint8_t{1}, uint8_t{3}}) {
    EXPECT_EQ(send(Side::kOutside,
                   PacketBuilder::icmp_error(kOutsideRouter, kExternal, 3, code, sent).build()),
              "none");
  }
  EXPECT_EQ(in(udp(kRemote, 5000, kExternal, port)), "none");
  EXPECT_EQ(port_of(udp(kHost, 40000, kOtherRemote)), port);
}

}  // namespace
}  // namespace flowkeep
