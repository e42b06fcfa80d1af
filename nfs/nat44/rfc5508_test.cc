// RFC 5508 (ICMP), requirement by requirement: docs/nat44.md. Bytes of translated errors in every
// form: nfs/nat44/nat44_test.cc.
#include "nfs/nat44/nat_fixture.h"

namespace flowkeep {
namespace {

class Rfc5508 : public NatTest {
 protected:
  static PacketBuilder ping(const std::string& from, uint16_t identifier,
                            const std::string& to = kRemote) {
    return PacketBuilder::echo_request(from, to, identifier).payload(20);
  }
  static PacketBuilder pong(const std::string& to, uint16_t identifier,
                            const std::string& from = kRemote) {
    return PacketBuilder::echo_reply(from, to, identifier).payload(20);
  }
  static Bytes error(const std::string& from, const std::string& to, const Bytes& about) {
    return PacketBuilder::icmp_error(from, to, 3, 3, about).build();
  }
  // The message as one of another type, its checksum right.
  static Bytes of_type(uint8_t type, const PacketBuilder& message) {
    Bytes frame = message.build();
    frame[34] = type;
    frame[36] = frame[37] = 0;
    const uint16_t checksum = naive_checksum(naive_sum(&frame[34], frame.size() - 34));
    frame[36] = static_cast<uint8_t>(checksum >> 8);
    frame[37] = static_cast<uint8_t>(checksum);
    return frame;
  }
};
INSTANTIATE_TEST_SUITE_P(Crashes, Rfc5508, testing::ValuesIn(kEveryMode));

TEST_P(Rfc5508, Req1_QueriesAndAnswersPass) {
  const uint16_t identifier = port_of(ping(kHost, 77));
  const Departure answer = harness().send(Side::kOutside, pong(kExternal, identifier).build());
  EXPECT_EQ(answer.frame, pong(kHost, 77).build());
}

// A message of zeros has the checksum ffff, which no difference of words leads to.
TEST_P(Rfc5508, Req1_AnAnswerOfZerosHasItsChecksum) {
  const uint16_t identifier = port_of(PacketBuilder::echo_request(kHost, kRemote, 0));
  ASSERT_NE(identifier, 0);
  const Bytes answer = PacketBuilder::echo_reply(kRemote, kExternal, identifier).build();
  EXPECT_EQ(harness().send(Side::kOutside, answer).frame,
            PacketBuilder::echo_reply(kRemote, kHost, 0).build());
}

TEST_P(Rfc5508, Req1_QueryMappingIsEndpointIndependent) {
  const uint16_t identifier = port_of(ping(kHost, 77));
  EXPECT_EQ(port_of(ping(kHost, 77, kOtherRemote)), identifier);
  EXPECT_NE(port_of(ping(kOtherHost, 77)), identifier);
}

TEST_P(Rfc5508, Req2_AQueryLivesForSixtySeconds) {
  const uint16_t identifier = port_of(ping(kHost, 77));
  pass_time(60);
  EXPECT_EQ(in(pong(kExternal, identifier)), "none");
  pass_time(61);
  EXPECT_NE(in(pong(kExternal, identifier)), "none");
}

TEST_P(Rfc5508, Req3_AnErrorWithABadChecksumIsDropped) {
  const uint16_t port = port_of(udp(kHost, 40000));
  Bytes damaged = error(kOutsideRouter, kExternal, udp(kExternal, port).build());
  damaged[36] ^= 1;  // the error's checksum
  EXPECT_EQ(send(Side::kOutside, damaged), "bad_icmp_checksum");
}

TEST_P(Rfc5508, Req4_ErrorsFromOutsideAreTranslated) {
  const uint16_t port = port_of(udp(kHost, 40000));
  const Departure departure = harness().send(
      Side::kOutside, error(kOutsideRouter, kExternal, udp(kExternal, port).build()));
  EXPECT_EQ(departure.frame, error(kOutsideRouter, kHost, udp(kHost, 40000).build()));
}

TEST_P(Rfc5508, Req4_AnErrorWithoutAMappingIsDropped) {
  const uint16_t port = port_of(udp(kHost, 40000));
  const auto other = static_cast<uint16_t>(port ^ 1);
  EXPECT_EQ(send(Side::kOutside, error(kOutsideRouter, kExternal, udp(kExternal, other).build())),
            "no_flow");
}

TEST_P(Rfc5508, Req5_ErrorsFromInsideAreTranslated) {
  const uint16_t port = port_of(udp(kHost, 40000));
  const Bytes answer = udp(kRemote, 5000, kHost, 40000).build();
  const Departure departure = harness().send(Side::kInside, error(kHost, kRemote, answer));
  EXPECT_EQ(departure.frame,
            error(kExternal, kRemote, udp(kRemote, 5000, kExternal, port).build()));
}

// An inside router's error leaves with the external address of the host that it is about.
TEST_P(Rfc5508, Req5_ErrorsOfInsideRoutersLeaveWithTheExternalAddress) {
  const uint16_t port = port_of(udp(kHost, 40000));
  const Bytes answer = udp(kRemote, 5000, kHost, 40000).build();
  const Departure departure = harness().send(Side::kInside, error("10.0.0.254", kRemote, answer));
  EXPECT_EQ(departure.frame,
            error(kExternal, kRemote, udp(kRemote, 5000, kExternal, port).build()));
}

TEST_P(Rfc5508, Req6_ErrorsRefreshNoMapping) {
  const uint16_t port = port_of(udp(kHost, 40000));
  const Bytes about = udp(kExternal, port).build();
  for (int i = 0; i < 3; ++i) {
    harness().now_s += 100;
    EXPECT_EQ(send(Side::kOutside, error(kOutsideRouter, kExternal, about)), "none");
  }
  pass_time(1);
  EXPECT_EQ(harness().flows(), 0U);
}

TEST_P(Rfc5508, Req6_ErrorsEndNoMapping) {
  const uint16_t identifier = port_of(ping(kHost, 77));
  EXPECT_EQ(
      send(Side::kOutside, error(kOutsideRouter, kExternal, ping(kExternal, identifier).build())),
      "none");
  EXPECT_EQ(in(pong(kExternal, identifier)), "none");
}

// Queries to an external address do not come here: the switch answers them.
TEST_P(Rfc5508, Req7_AHairpinnedAnswerToNoQueryIsDropped) {
  harness(nat(R"("filtering":"endpoint_independent")"));
  const uint16_t identifier = port_of(ping(kHost, 77));
  EXPECT_EQ(drop_reason_name(hairpin(pong(kExternal, identifier, kOtherHost)).reason), "no_flow");
}

// Host tells the other host that it does not want its hairpinned packet.
TEST_P(Rfc5508, Req7_HairpinnedErrorsAreTranslatedTwice) {
  harness(nat(R"("filtering":"endpoint_independent")"));
  const uint16_t server = port_of(udp(kHost, 40000));
  const uint16_t client = port_of(udp(kOtherHost, 41000));
  const Departure there = hairpin(udp(kOtherHost, 41000, kExternal, server));
  ASSERT_EQ(there.frame, udp(kExternal, client, kHost, 40000).build());
  const Departure out = harness().send(Side::kInside, error(kHost, kExternal, there.frame));
  ASSERT_EQ(drop_reason_name(out.reason), "none");
  EXPECT_EQ(out.frame,
            error(kExternal, kExternal, udp(kExternal, client, kExternal, server).build()));
  const Departure back = harness().send(Side::kOutside, out.frame);
  EXPECT_EQ(back.frame,
            error(kExternal, kOtherHost, udp(kOtherHost, 41000, kExternal, server).build()));
}

TEST_P(Rfc5508, Req10_TimeExceededIsTranslated) {
  const uint16_t port = port_of(udp(kHost, 40000));
  const auto exceeded = [](const char* to, const Bytes& about) {
    return PacketBuilder::icmp_error(kOutsideRouter, to, 11, 0, about).build();
  };
  const Departure departure =
      harness().send(Side::kOutside, exceeded(kExternal, udp(kExternal, port).build()));
  EXPECT_EQ(departure.frame, exceeded(kHost, udp(kHost, 40000).build()));
}

// Source quench, redirect, timestamp, information and address mask, all with right checksums.
TEST_P(Rfc5508, Req10_OtherMessagesAreDropped) {
  const uint16_t identifier = port_of(ping(kHost, 77));
  for (const int number : {4, 5, 13, 14, 15, 16, 17, 18}) {
    const auto type = static_cast<uint8_t>(number);
    EXPECT_EQ(send(Side::kInside, of_type(type, ping(kHost, 77))), "unsupported_icmp");
    EXPECT_EQ(send(Side::kOutside, of_type(type, pong(kExternal, identifier))), "unsupported_icmp");
  }
  EXPECT_EQ(send(Side::kInside, of_type(8, ping(kHost, 77))), "none");
}

}  // namespace
}  // namespace flowkeep
