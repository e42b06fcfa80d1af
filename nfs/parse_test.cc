#include "nfs/parse.h"

#include <gtest/gtest.h>

#include <functional>
#include <random>
#include <set>

#include "nfs/packet_builder.h"

namespace flowkeep {
namespace {

constexpr HashSecret kSecret{1, 2};
constexpr char kInside[] = "10.0.0.2";
constexpr char kRemote[] = "198.51.100.7";
constexpr char kRouter[] = "192.0.2.1";

DropReason parse_at(const Bytes& frame, Side side, PacketMeta& meta) {
  return parse(frame.data(), static_cast<uint16_t>(frame.size()), side, kSecret, meta);
}
DropReason reason_of(const Bytes& frame) {
  PacketMeta meta;
  return parse_at(frame, Side::kInside, meta);
}

FlowKey key(const char* src, uint16_t src_port, const char* dst, uint16_t dst_port,
            uint8_t protocol, Side side) {
  return {*parse_ipv4_address(src),
          *parse_ipv4_address(dst),
          Be16::from_host(src_port),
          Be16::from_host(dst_port),
          protocol,
          side,
          0};
}

TEST(Parse, Tcp) {
  const Bytes frame = PacketBuilder::tcp(kInside, 40000, kRemote, 443, kTcpSyn | kTcpAck)
                          .ip_options(2)
                          .tcp_options(3)
                          .payload(10)
                          .padding(5)
                          .build();
  PacketMeta meta;
  ASSERT_EQ(parse_at(frame, Side::kInside, meta), DropReason::kNone);
  EXPECT_EQ(meta.key, key(kInside, 40000, kRemote, 443, kProtocolTcp, Side::kInside));
  EXPECT_EQ(meta.hash, hash_key(meta.key, kSecret));
  EXPECT_EQ(meta.length, frame.size() - 5) << "padding is not part of the packet";
  EXPECT_EQ(meta.l3_offset, 14);
  EXPECT_EQ(meta.l4_offset, 14 + 28);
  EXPECT_EQ(meta.inner_l3_offset, 0);
  EXPECT_EQ(meta.tcp_flags, kTcpSyn | kTcpAck);
}

TEST(Parse, UdpFromOutside) {
  const Bytes frame = PacketBuilder::udp(kRemote, 53, kInside, 40000).payload(3).build();
  PacketMeta meta;
  ASSERT_EQ(parse_at(frame, Side::kOutside, meta), DropReason::kNone);
  EXPECT_EQ(meta.key, key(kRemote, 53, kInside, 40000, kProtocolUdp, Side::kOutside));
  EXPECT_EQ(meta.side, Side::kOutside);
}

TEST(Parse, EchoRequestAndReplyBelongTogether) {
  PacketMeta request, reply;
  ASSERT_EQ(
      parse_at(PacketBuilder::echo_request(kInside, kRemote, 77).build(), Side::kInside, request),
      DropReason::kNone);
  ASSERT_EQ(
      parse_at(PacketBuilder::echo_reply(kRemote, kInside, 77).build(), Side::kOutside, reply),
      DropReason::kNone);
  EXPECT_EQ(request.key.src_port.host(), 77);
  EXPECT_EQ(reply.key, request.key.reversed());
}

TEST(Parse, IcmpErrorHasTheKeyOfAnAnswerToTheQuotedPacket) {
  const Bytes packets[] = {
      PacketBuilder::tcp(kInside, 40000, kRemote, 443, kTcpAck).payload(20).build(),
      PacketBuilder::udp(kInside, 40000, kRemote, 53).payload(20).build(),
      PacketBuilder::echo_request(kInside, kRemote, 77).payload(20).ip_options(10).build()};
  for (const Bytes& about : packets) {
    for (const uint8_t type : {kIcmpUnreachable, kIcmpTimeExceeded, kIcmpParameterProblem}) {
      PacketMeta quoted, error;
      ASSERT_EQ(parse_at(about, Side::kInside, quoted), DropReason::kNone);
      const Bytes frame = PacketBuilder::icmp_error(kRouter, kInside, type, 0, about).build();
      ASSERT_EQ(parse_at(frame, Side::kOutside, error), DropReason::kNone);
      EXPECT_EQ(error.key, quoted.key.reversed());
      EXPECT_EQ(error.inner_l3_offset, 14 + 20 + 8);
      EXPECT_EQ(error.inner_l4_offset, error.inner_l3_offset + quoted.l4_offset - quoted.l3_offset);
    }
  }
}

struct Refusal {
  const char* description;
  Bytes frame;
  DropReason reason;
};

Bytes changed(Bytes frame, const std::function<void(Bytes&)>& change, bool repair_checksum = true) {
  change(frame);
  if (repair_checksum) {
    frame[24] = frame[25] = 0;
    const uint16_t checksum = naive_checksum(naive_sum(&frame[14], (frame[14] & 0x0f) * 4U));
    frame[24] = static_cast<uint8_t>(checksum >> 8);
    frame[25] = static_cast<uint8_t>(checksum);
  }
  return frame;
}

TEST(Parse, Refusals) {
  const Bytes tcp = PacketBuilder::tcp(kInside, 1, kRemote, 2, kTcpSyn).payload(8).build();
  const Bytes udp = PacketBuilder::udp(kInside, 1, kRemote, 2).payload(8).build();
  const Bytes error = PacketBuilder::icmp_error(kRouter, kRemote, 3, 0, udp).build();
  const auto error_about = [](const Bytes& about) {
    return PacketBuilder::icmp_error(kRouter, kRemote, 3, 0, about).build();
  };
  const auto from = [](const char* source) {
    return PacketBuilder::udp(source, 1, kRemote, 2).build();
  };
  const Refusal refusals[] = {
      {"IPv6", PacketBuilder::udp(kInside, 1, kRemote, 2).ether_type(0x86dd).build(),
       DropReason::kUnsupportedIpv6},
      {"VLAN", PacketBuilder::udp(kInside, 1, kRemote, 2).ether_type(0x8100).build(),
       DropReason::kUnsupportedEtherType},
      {"version 6", changed(tcp, [](Bytes& f) { f[14] = 0x65; }), DropReason::kBadIpv4Header},
      {"header of 4 words", changed(tcp, [](Bytes& f) { f[14] = 0x44; }),
       DropReason::kBadIpv4Header},
      {"total length below header", changed(tcp, [](Bytes& f) { f[16] = 0, f[17] = 19; }),
       DropReason::kBadIpv4Header},
      {"total length beyond frame",
       changed(tcp, [](Bytes& f) { f[17] = static_cast<uint8_t>(f[17] + 1); }),
       DropReason::kTruncatedIpv4},
      {"IPv4 checksum",
       changed(
           tcp, [](Bytes& f) { f[22] = 9; }, false),
       DropReason::kBadIpv4Checksum},
      {"more fragments", PacketBuilder::udp(kInside, 1, kRemote, 2).fragment(0x2000).build(),
       DropReason::kUnsupportedFragment},
      {"fragment offset", PacketBuilder::udp(kInside, 1, kRemote, 2).fragment(0x0001).build(),
       DropReason::kUnsupportedFragment},
      {"SCTP", PacketBuilder::udp(kInside, 1, kRemote, 2).protocol(132).build(),
       DropReason::kUnsupportedProtocol},
      {"TCP data offset below 5", changed(tcp, [](Bytes& f) { f[46] = 0x40; }),
       DropReason::kBadTcpHeader},
      {"TCP data offset beyond packet", changed(tcp, [](Bytes& f) { f[46] = 0xf0; }),
       DropReason::kBadTcpHeader},
      {"UDP length below 8", changed(udp, [](Bytes& f) { f[38] = 0, f[39] = 7; }),
       DropReason::kBadUdpLength},
      {"UDP length beyond packet", changed(udp, [](Bytes& f) { f[39] = 17; }),
       DropReason::kBadUdpLength},
      {"ICMP timestamp", changed(error, [](Bytes& f) { f[34] = 13; }),
       DropReason::kUnsupportedIcmp},
      {"source quench", changed(error, [](Bytes& f) { f[34] = 4; }), DropReason::kUnsupportedIcmp},
      {"redirect", changed(error, [](Bytes& f) { f[34] = 5; }), DropReason::kUnsupportedIcmp},
      {"ICMP error checksum", changed(error, [](Bytes& f) { f[40] = 1; }),
       DropReason::kBadIcmpChecksum},
      {"error about error", error_about(error), DropReason::kUnsupportedIcmp},
      {"error about SCTP",
       error_about(PacketBuilder::udp(kInside, 1, kRemote, 2).protocol(132).build()),
       DropReason::kUnsupportedProtocol},
      {"error about later fragment",
       error_about(PacketBuilder::udp(kInside, 1, kRemote, 2).fragment(5).build()),
       DropReason::kUnsupportedFragment},
      {"quoted checksum",
       error_about(changed(
           udp, [](Bytes& f) { f[22] = 9; }, false)),
       DropReason::kBadIcmpChecksum},
      {"quotes 7 bytes of L4", PacketBuilder::icmp_error(kRouter, kRemote, 3, 0, udp, 7).build(),
       DropReason::kTruncatedL4},
      {"source 0.0.0.0", from("0.0.0.0"), DropReason::kBadSource},
      {"source 127.0.0.1", from("127.0.0.1"), DropReason::kBadSource},
      {"source multicast", from("224.0.0.5"), DropReason::kBadSource},
      {"source broadcast", from("255.255.255.255"), DropReason::kBadSource},
  };
  for (const Refusal& refusal : refusals) {
    EXPECT_EQ(reason_of(refusal.frame), refusal.reason)
        << refusal.description << ": " << drop_reason_name(reason_of(refusal.frame));
  }
}

TEST(Parse, FirstFragmentMayBeQuoted) {
  const Bytes fragment = PacketBuilder::udp(kInside, 1, kRemote, 2).fragment(0x2000).build();
  EXPECT_EQ(reason_of(PacketBuilder::icmp_error(kRouter, kRemote, 3, 4, fragment).build()),
            DropReason::kNone);
}

std::vector<Bytes> packets_of_every_kind() {
  const Bytes tcp =
      PacketBuilder::tcp(kInside, 1, kRemote, 2, kTcpSyn).ip_options(10).tcp_options(10).build();
  const Bytes udp = PacketBuilder::udp(kInside, 1, kRemote, 2).payload(30).build();
  const Bytes echo = PacketBuilder::echo_request(kInside, kRemote, 9).payload(30).build();
  return {tcp,
          udp,
          echo,
          PacketBuilder::icmp_error(kRouter, kRemote, 3, 4, tcp, 60).build(),
          PacketBuilder::icmp_error(kRouter, kRemote, 11, 0, udp).ip_options(10).build(),
          PacketBuilder::icmp_error(kRouter, kRemote, 12, 0, echo).build()};
}

// The buffer is exactly as large as what is left, so the address sanitizer sees a read beyond it.
TEST(Parse, CutAtEveryLength) {
  for (const Bytes& whole : packets_of_every_kind()) {
    ASSERT_EQ(reason_of(whole), DropReason::kNone);
    for (size_t length = 0; length < whole.size(); ++length) {
      const Bytes cut(whole.begin(), whole.begin() + static_cast<ptrdiff_t>(length));
      EXPECT_EQ(reason_of(cut),
                length < 14 ? DropReason::kTruncatedEthernet : DropReason::kTruncatedIpv4)
          << length;
    }
  }
}

// The same with a total length that says nothing is missing: the inner bounds are reached.
TEST(Parse, CutAtEveryLengthWithMatchingTotalLength) {
  std::set<DropReason> reasons;
  for (const Bytes& whole : packets_of_every_kind()) {
    for (size_t length = 34; length < whole.size(); ++length) {
      const Bytes cut(whole.begin(), whole.begin() + static_cast<ptrdiff_t>(length));
      const Bytes frame = changed(cut, [](Bytes& f) {
        f[16] = static_cast<uint8_t>((f.size() - 14) >> 8);
        f[17] = static_cast<uint8_t>(f.size() - 14);
        if ((f[14] & 0x0f) * 4U > f.size() - 14) f[14] = 0x45;
      });
      reasons.insert(reason_of(frame));
    }
  }
  EXPECT_TRUE(reasons.contains(DropReason::kTruncatedL4));
  EXPECT_TRUE(reasons.contains(DropReason::kBadUdpLength));
  EXPECT_TRUE(reasons.contains(DropReason::kBadTcpHeader));
  EXPECT_TRUE(reasons.contains(DropReason::kBadIcmpChecksum));
}

// Whatever is in a frame: no read beyond it, and what is accepted has offsets within it.
TEST(Parse, RandomChangesNeverLeadOutside) {
  constexpr uint32_t kSeed = 811;
  SCOPED_TRACE("seed " + std::to_string(kSeed));
  std::mt19937 random(kSeed);
  const std::vector<Bytes> kinds = packets_of_every_kind();
  size_t accepted = 0;
  for (int round = 0; round < 200000; ++round) {
    Bytes frame = kinds[random() % kinds.size()];
    for (uint32_t change = random() % 4; change > 0; --change) {
      frame[random() % frame.size()] = static_cast<uint8_t>(random());
    }
    if (random() % 4 == 0) frame.resize(random() % frame.size());
    frame = Bytes(frame.begin(), frame.end());
    if (frame.size() >= 34 && random() % 2 == 0 && (frame[14] & 0x0f) * 4U + 14 <= frame.size()) {
      frame = changed(frame, [](Bytes&) {});
    }
    PacketMeta meta;
    if (parse_at(frame, Side::kInside, meta) != DropReason::kNone) continue;
    ++accepted;
    ASSERT_LE(meta.length, frame.size());
    ASSERT_LE(meta.l4_offset + 8, meta.length);
    ASSERT_LE(meta.inner_l3_offset == 0 ? 0 : meta.inner_l4_offset + 8, meta.length);
  }
  EXPECT_GT(accepted, 20000U);
}

TEST(DropReason, EachHasANameOfItsOwn) {
  std::set<std::string_view> names;
  for (size_t i = 0; i < kDropReasons; ++i)
    names.insert(drop_reason_name(static_cast<DropReason>(i)));
  EXPECT_EQ(names.size(), kDropReasons);
  EXPECT_FALSE(names.contains("unknown"));
  EXPECT_EQ(drop_reason_name(DropReason::kFirewallDenied), "firewall_denied");
}

}  // namespace
}  // namespace flowkeep
