// RFC 5382 (TCP), requirement by requirement: docs/nat44.md.
#include "nfs/nat44/nat_fixture.h"

namespace flowkeep {
namespace {

class Rfc5382 : public NatTest {
 protected:
  std::string_view from_remote(uint16_t port, uint8_t flags) {
    return in(tcp(kRemote, 80, kExternal, port, flags));
  }
};
INSTANTIATE_TEST_SUITE_P(Crashes, Rfc5382, testing::ValuesIn(kEveryMode));

TEST_P(Rfc5382, Req1_MappingIsEndpointIndependent) {
  const uint16_t port = port_of(tcp(kHost, 40000, kRemote, 80, kTcpSyn));
  for (uint16_t to = 81; to < 120; ++to) {
    EXPECT_EQ(port_of(tcp(kHost, 40000, kRemote, to, kTcpSyn)), port);
    EXPECT_EQ(port_of(tcp(kHost, 40000, kOtherRemote, to, kTcpSyn)), port);
  }
}

TEST_P(Rfc5382, Req2_ThreeWayHandshake) {
  const uint16_t port = connect();
  EXPECT_EQ(from_remote(port, kTcpAck), "none");
}

TEST_P(Rfc5382, Req2_SimultaneousOpen) {
  const uint16_t port = port_of(tcp(kHost, 40000, kRemote, 80, kTcpSyn));
  EXPECT_EQ(from_remote(port, kTcpSyn), "none");
  EXPECT_EQ(out(tcp(kHost, 40000, kRemote, 80, kTcpSyn | kTcpAck)), "none");
  EXPECT_EQ(from_remote(port, kTcpSyn | kTcpAck), "none");
  EXPECT_EQ(out(tcp(kHost, 40000, kRemote, 80, kTcpAck)), "none");
  pass_time(7440);
  EXPECT_EQ(from_remote(port, kTcpAck), "none") << "it is established";
}

TEST_P(Rfc5382, Req2_HalfClosedConnectionsGoOn) {
  const uint16_t port = connect();
  EXPECT_EQ(out(tcp(kHost, 40000, kRemote, 80, kTcpFin | kTcpAck)), "none");
  for (int i = 0; i < 5; ++i) EXPECT_EQ(from_remote(port, kTcpAck), "none");
}

TEST_P(Rfc5382, Req3_FilteringIsAsConfigured) {
  const uint16_t port = port_of(tcp(kHost, 40000, kRemote, 80, kTcpSyn));
  EXPECT_EQ(in(tcp(kOtherRemote, 80, kExternal, port, kTcpSyn)), "nat_filtered");
  EXPECT_EQ(in(tcp(kRemote, 81, kExternal, port, kTcpSyn)), "nat_filtered");
}

TEST_P(Rfc5382, Req3_EndpointIndependentFilteringLetsConnectionsIn) {
  harness(nat(R"("filtering":"endpoint_independent")"));
  const uint16_t port = port_of(tcp(kHost, 40000, kRemote, 80, kTcpSyn));
  const Departure syn =
      harness().send(Side::kOutside, tcp(kOtherRemote, 9, kExternal, port, kTcpSyn).build());
  EXPECT_EQ(syn.frame, tcp(kOtherRemote, 9, kHost, 40000, kTcpSyn).build());
  EXPECT_EQ(port_of(tcp(kHost, 40000, kOtherRemote, 9, kTcpSyn | kTcpAck)), port);
}

// An unsolicited SYN is dropped without an answer, so that a simultaneous open can still succeed.
TEST_P(Rfc5382, Req4_AnUnsolicitedSynIsNotAnswered) {
  const uint16_t port = port_of(tcp(kHost, 40000, kRemote, 80, kTcpSyn));
  EXPECT_EQ(in(tcp(kOtherRemote, 80, kExternal, port, kTcpSyn)), "nat_filtered");
  EXPECT_EQ(port_of(tcp(kHost, 40000, kOtherRemote, 80, kTcpSyn)), port);
  EXPECT_EQ(in(tcp(kOtherRemote, 80, kExternal, port, kTcpSyn)), "none");
}

TEST_P(Rfc5382, Req5_AnEstablishedConnectionMayIdleForTwoHoursAndFourMinutes) {
  const uint16_t port = connect();
  pass_time(7440);
  EXPECT_EQ(from_remote(port, kTcpAck), "none");
  pass_time(7441);
  EXPECT_NE(from_remote(port, kTcpAck), "none");
}

TEST_P(Rfc5382, Req5_APartlyOpenConnectionMayIdleForFourMinutes) {
  const uint16_t port = port_of(tcp(kHost, 40000, kRemote, 80, kTcpSyn));
  pass_time(240);
  EXPECT_EQ(from_remote(port, kTcpSyn | kTcpAck), "none");
  pass_time(240);
  EXPECT_EQ(harness().flows(), 1U);
  pass_time(1);
  EXPECT_EQ(harness().flows(), 0U);
}

TEST_P(Rfc5382, Req5_AClosingConnectionMayIdleForFourMinutes) {
  const uint16_t port = connect();
  EXPECT_EQ(out(tcp(kHost, 40000, kRemote, 80, kTcpFin | kTcpAck)), "none");
  EXPECT_EQ(from_remote(port, kTcpFin | kTcpAck), "none");
  pass_time(240);
  EXPECT_EQ(from_remote(port, kTcpAck), "none");
  pass_time(241);
  EXPECT_EQ(harness().flows(), 0U);
}

TEST(Rfc5382Config, Req5_TimersAreConfigurableAndNotBelowTheirLeast) {
  struct Case {
    uint32_t Timeouts::*timer;
    uint32_t least;
  };
  for (const Case& one : {Case{&Timeouts::tcp_established_s, 7440},
                          {&Timeouts::tcp_opening_s, 240},
                          {&Timeouts::tcp_closing_s, 240},
                          {&Timeouts::tcp_closed_s, 240},
                          {&Timeouts::icmp_s, 60}}) {
    ChainSpec spec{"test", 1, {{"nat44", R"({"external_addresses":["203.0.113.10"]})"}}};
    spec.timeouts.*one.timer = one.least;
    EXPECT_TRUE(validate_chain(spec).ok());
    spec.timeouts.*one.timer = one.least - 1;
    EXPECT_FALSE(validate_chain(spec).ok());
  }
}

TEST_P(Rfc5382, Req8_HairpinningPresentsTheExternalSource) {
  harness(nat(R"("filtering":"endpoint_independent")"));
  const uint16_t server = port_of(tcp(kHost, 40000, kRemote, 80, kTcpSyn));
  const Departure syn = hairpin(tcp(kOtherHost, 41000, kExternal, server, kTcpSyn));
  ASSERT_EQ(syn.reason, DropReason::kNone);
  const FlowKey seen = key_of(syn);
  EXPECT_EQ(to_string(seen.src), kExternal);
  EXPECT_EQ(to_string(seen.dst), kHost);
  const Departure answer =
      hairpin(tcp(kHost, 40000, kExternal, seen.src_port.host(), kTcpSyn | kTcpAck));
  EXPECT_EQ(answer.frame, tcp(kExternal, server, kOtherHost, 41000, kTcpSyn | kTcpAck).build());
}

TEST_P(Rfc5382, Req7_NoPortIsOverloaded) {
  expect_no_port_is_overloaded(
      [](uint16_t port) { return tcp(kHost, port, kRemote, port, kTcpSyn); });
}

TEST_P(Rfc5382, Req9_DestinationUnreachableIsTranslated) {
  const uint16_t port = connect();
  const auto error = [](const char* to, const Bytes& about) {
    return PacketBuilder::icmp_error(kOutsideRouter, to, 3, 4, about).build();
  };
  const Departure departure = harness().send(
      Side::kOutside, error(kExternal, tcp(kExternal, port, kRemote, 80, kTcpAck).build()));
  EXPECT_EQ(departure.frame, error(kHost, tcp(kHost, 40000, kRemote, 80, kTcpAck).build()));
}

TEST_P(Rfc5382, Req10_ErrorsEndNoConnection) {
  const uint16_t port = connect();
  const Bytes sent = tcp(kExternal, port, kRemote, 80, kTcpAck).build();
  EXPECT_EQ(send(Side::kOutside,
                 PacketBuilder::icmp_error(kOutsideRouter, kExternal, 3, 3, sent).build()),
            "none");
  pass_time(7440);
  EXPECT_EQ(from_remote(port, kTcpAck), "none");
}

}  // namespace
}  // namespace flowkeep
