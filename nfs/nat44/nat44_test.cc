#include "nfs/nat44/nat44.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "nfs/nat44/nat_fixture.h"

namespace flowkeep {
namespace {

constexpr char kInsideRouter[] = "10.0.0.254";

class Nat44Test : public NatTest {
 protected:
  // Of a packet that leaves to the outside: port, or identifier of an echo.
  uint16_t external_port(const Bytes& frame) {
    const FlowKey key = key_of(harness().send(Side::kInside, frame));
    EXPECT_EQ(to_string(key.src), kExternal);
    return key.src_port.host();
  }
  void expect_out(const Bytes& frame, const Bytes& expected) {
    expect_same(harness().send(Side::kInside, frame), expected);
  }
  void expect_back(const Bytes& frame, const Bytes& expected) {
    expect_same(harness().send(Side::kOutside, frame), expected);
  }

 private:
  static void expect_same(const Departure& departure, const Bytes& expected) {
    EXPECT_EQ(drop_reason_name(departure.reason), "none");
    EXPECT_EQ(departure.frame, expected);
    EXPECT_EQ(departure.frame.empty() ? "" : checksum_faults(departure.frame), "");
  }
};
INSTANTIATE_TEST_SUITE_P(Crashes, Nat44Test, testing::ValuesIn(kEveryMode));

// ---- Rewrites: every byte of what comes out, against a packet built with the other endpoint.

TEST_P(Nat44Test, Tcp) {
  const auto out = [](const char* src, uint16_t port, uint8_t flags) {
    return PacketBuilder::tcp(src, port, kRemote, 443, flags)
        .ip_options(1)
        .tcp_options(2)
        .payload(33)
        .build();
  };
  const auto back = [](const char* dst, uint16_t port) {
    return PacketBuilder::tcp(kRemote, 443, dst, port, kTcpSyn | kTcpAck).build();
  };
  const uint16_t port = external_port(out(kHost, 40000, kTcpSyn));
  expect_out(out(kHost, 40000, kTcpSyn), out(kExternal, port, kTcpSyn));
  expect_back(back(kExternal, port), back(kHost, 40000));
  expect_out(out(kHost, 40000, kTcpAck), out(kExternal, port, kTcpAck));

  const auto record = harness().flow_of(Side::kInside, out(kHost, 40000, kTcpAck));
  ASSERT_TRUE(record);
  EXPECT_EQ(record->phase, FlowPhase::kEstablished);
  Nat44::Hard hard;
  std::memcpy(&hard, record->hard, sizeof(hard));
  EXPECT_EQ(to_string(hard.external.address), kExternal);
  EXPECT_EQ(hard.external.port.host(), port);
}

TEST_P(Nat44Test, Udp) {
  const auto out = [](const char* src, uint16_t port) {
    return PacketBuilder::udp(src, port, kRemote, 53).payload(18).build();
  };
  const auto back = [](const char* dst, uint16_t port) {
    return PacketBuilder::udp(kRemote, 53, dst, port).payload(7).build();
  };
  const uint16_t port = external_port(out(kHost, 40001));
  expect_out(out(kHost, 40001), out(kExternal, port));
  expect_back(back(kExternal, port), back(kHost, 40001));
}

TEST_P(Nat44Test, UdpWithoutChecksum) {
  const auto out = [](const char* src, uint16_t port) {
    return PacketBuilder::udp(src, port, kRemote, 53).without_udp_checksum().build();
  };
  expect_out(out(kHost, 40001), out(kExternal, external_port(out(kHost, 40001))));
}

TEST_P(Nat44Test, Echo) {
  const auto out = [](const char* src, uint16_t identifier) {
    return PacketBuilder::echo_request(src, kRemote, identifier).payload(20).build();
  };
  const auto back = [](const char* dst, uint16_t identifier) {
    return PacketBuilder::echo_reply(kRemote, dst, identifier).payload(20).build();
  };
  const uint16_t identifier = external_port(out(kHost, 77));
  expect_out(out(kHost, 77), out(kExternal, identifier));
  expect_back(back(kExternal, identifier), back(kHost, 77));
}

// What each side sent, as the inside sees it with kHost and as the outside sees it with kExternal.
struct Conversation {
  const char* description;
  Bytes (*out)(const char* host, uint16_t port);
  Bytes (*back)(const char* host, uint16_t port);
};
const Conversation kConversations[] = {
    {"TCP",
     [](const char* host, uint16_t port) {
       return PacketBuilder::tcp(host, port, kRemote, 443, kTcpSyn).payload(64).build();
     },
     [](const char* host, uint16_t port) {
       return PacketBuilder::tcp(kRemote, 443, host, port, kTcpAck).payload(64).build();
     }},
    {"UDP",
     [](const char* host, uint16_t port) {
       return PacketBuilder::udp(host, port, kRemote, 33434).payload(64).build();
     },
     [](const char* host, uint16_t port) {
       return PacketBuilder::udp(kRemote, 33434, host, port).payload(64).build();
     }},
    {"UDP without checksum",
     [](const char* host, uint16_t port) {
       return PacketBuilder::udp(host, port, kRemote, 33434)
           .without_udp_checksum()
           .payload(64)
           .build();
     },
     [](const char* host, uint16_t port) {
       return PacketBuilder::udp(kRemote, 33434, host, port)
           .without_udp_checksum()
           .payload(64)
           .build();
     }},
    {"echo",
     [](const char* host, uint16_t port) {
       return PacketBuilder::echo_request(host, kRemote, port).payload(64).build();
     },
     [](const char* host, uint16_t port) {
       return PacketBuilder::echo_reply(kRemote, host, port).payload(64).build();
     }},
};

// Traceroute (type 11) and path MTU discovery (3, 4) through the NAT, however much is quoted: 8
// bytes, all before a TCP checksum, up to its end, everything.
TEST_P(Nat44Test, ErrorsFromTheOutside) {
  for (const Conversation& talk : kConversations) {
    SCOPED_TRACE(talk.description);
    const Bytes sent = talk.out(kHost, 4001);
    const uint16_t port = external_port(sent);
    for (const size_t quoted : {8U, 16U, 18U, 19U, 72U}) {
      for (const auto& [type, code] : {std::pair{3, 4}, {11, 0}, {12, 0}}) {
        const auto error = [&](const char* to, const Bytes& about) {
          return PacketBuilder::icmp_error(kOutsideRouter, to, static_cast<uint8_t>(type),
                                           static_cast<uint8_t>(code), about, quoted)
              .build();
        };
        SCOPED_TRACE(quoted);
        expect_back(error(kExternal, talk.out(kExternal, port)), error(kHost, sent));
      }
    }
  }
}

TEST_P(Nat44Test, ErrorsFromTheInside) {
  for (const Conversation& talk : kConversations) {
    SCOPED_TRACE(talk.description);
    const uint16_t port = external_port(talk.out(kHost, 4001));
    for (const char* reporter : {kHost, kInsideRouter}) {
      for (const size_t quoted : {8U, 18U, 72U}) {
        const auto error = [&](const char* from, const Bytes& about) {
          return PacketBuilder::icmp_error(from, kRemote, 3, 3, about, quoted).build();
        };
        SCOPED_TRACE(quoted);
        expect_out(error(reporter, talk.back(kHost, 4001)),
                   error(kExternal, talk.back(kExternal, port)));
      }
    }
  }
}

// The largest headers there are: all that is edited must lie within what the undo log saves.
TEST_P(Nat44Test, ErrorWithAllOptions) {
  const auto sent = [](const char* host, uint16_t port) {
    return PacketBuilder::tcp(host, port, kRemote, 443, kTcpSyn)
        .ip_options(10)
        .tcp_options(10)
        .build();
  };
  const uint16_t port = external_port(sent(kHost, 4001));
  const auto error = [&](const char* to, const Bytes& about) {
    return PacketBuilder::icmp_error(kOutsideRouter, to, 3, 4, about, 60).ip_options(10).build();
  };
  expect_back(error(kExternal, sent(kExternal, port)), error(kHost, sent(kHost, 4001)));
}

// ---- Names of refusals.

TEST_P(Nat44Test, OnlyTheRemoteEndpointOfAFlowGetsIn) {
  const uint16_t port = external_port(udp(kHost, 40000, kRemote, 53).build());
  EXPECT_EQ(in(udp(kRemote, 53, kExternal, port)), "none");
  EXPECT_EQ(in(udp(kRemote, 54, kExternal, port)), "nat_filtered");
  EXPECT_EQ(in(udp(kOtherRemote, 53, kExternal, port)), "nat_filtered");
  EXPECT_EQ(in(tcp(kRemote, 53, kExternal, port, kTcpSyn)), "nat_no_mapping");
  EXPECT_EQ(in(tcp(kRemote, 53, kExternal, port, kTcpAck)), "no_flow");
  EXPECT_EQ(in(udp(kRemote, 53, kExternal, 1023)), "no_port_lease");
  const Bytes foreign = udp(kExternal, port, kRemote, 99).build();
  EXPECT_EQ(in(PacketBuilder::icmp_error(kOutsideRouter, kExternal, 3, 3, foreign)), "no_flow");
}

// GRE and ESP have no port that a mapping could be found by.
TEST_P(Nat44Test, OtherProtocolsAreRefusedByName) {
  for (const uint8_t protocol : {uint8_t{47}, uint8_t{50}}) {
    EXPECT_EQ(out(udp(kHost, 0, kRemote, 0).protocol(protocol)), "nat_unsupported_protocol");
  }
  EXPECT_EQ(harness().flows(), 0U);
}

// One block: every port of it is given, once towards each remote, to the bucket that leased it.
TEST_P(Nat44Test, ExhaustedRangeRefusesNewFlowsOnly) {
  harness(nat(kOneUnit));
  std::map<uint16_t, uint16_t> opened;  // external port -> inside port
  std::set<std::string_view> refusals;
  for (uint16_t port = 1000; port < 6000; ++port) {
    const Departure departure =
        harness().send(Side::kInside, PacketBuilder::udp(kHost, port, kRemote, 53).build());
    if (departure.reason != DropReason::kNone) {
      refusals.insert(drop_reason_name(departure.reason));
      continue;
    }
    const uint16_t external = key_of(departure).src_port.host();
    EXPECT_TRUE(2048 <= external && external <= 2111);
    EXPECT_TRUE(opened.emplace(external, port).second) << external << " given twice";
  }
  EXPECT_EQ(opened.size(), 64U);
  EXPECT_EQ(refusals, std::set<std::string_view>{"nat_ports_exhausted"});
  for (const auto& [external, port] : opened) {
    EXPECT_EQ(external_port(PacketBuilder::udp(kHost, port, kRemote, 53).build()), external);
    EXPECT_EQ(external_port(PacketBuilder::udp(kHost, port, kRemote, 54).build()) / 64, 2048 / 64);
  }
  harness().now_s += 301;
  EXPECT_EQ(harness().sweep_all(), 128U);
  external_port(PacketBuilder::udp(kHost, opened.begin()->second, kRemote, 53).build());
}

}  // namespace
}  // namespace flowkeep
