#include "nfs/parse.h"

#include <gtest/gtest.h>

#include <functional>
#include <random>
#include <set>

#include "nfs/naive_parse.h"
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
      {"IPv4 as IPv6", PacketBuilder::udp(kInside, 1, kRemote, 2).ether_type(0x86dd).build(),
       DropReason::kTruncatedIpv6},
      {"LLDP", PacketBuilder::udp(kInside, 1, kRemote, 2).ether_type(0x88cc).build(),
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
       DropReason::kFragment},
      {"fragment offset", PacketBuilder::udp(kInside, 1, kRemote, 2).fragment(0x0001).build(),
       DropReason::kFragment},
      {"first fragment of 9 bytes",
       PacketBuilder::udp(kInside, 1, kRemote, 2).payload(1).fragment(0x2000).build(),
       DropReason::kBadFragment},
      {"fragment beyond 64 KiB",
       PacketBuilder::udp(kInside, 1, kRemote, 2).fragment(0x1fff).build(),
       DropReason::kBadFragment},
      {"ICMPv6 over IPv4", PacketBuilder::udp(kInside, 1, kRemote, 2).protocol(58).build(),
       DropReason::kUnsupportedProtocol},
      {"IPv6's hop-by-hop options over IPv4",
       PacketBuilder::udp(kInside, 1, kRemote, 2).protocol(0).build(),
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
      {"error about ICMPv6 over IPv4",
       error_about(PacketBuilder::udp(kInside, 1, kRemote, 2).protocol(58).build()),
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
    const bool is_known = meta.protocol() == kProtocolTcp || meta.protocol() == kProtocolUdp ||
                          meta.protocol() == kProtocolIcmp;
    ASSERT_LE(meta.l4_offset + (is_known ? 8 : 0), meta.length);
    ASSERT_LE(meta.inner_l3_offset == 0 ? 0 : meta.inner_l4_offset + 8, meta.length);
  }
  EXPECT_GT(accepted, 20000U);
}

// ---- VLAN tags.

TEST(Parse, TagsAreSteppedOverAndKept) {
  const auto tagged = [](std::vector<uint16_t> tcis) {
    PacketBuilder builder = PacketBuilder::udp(kInside, 1, kRemote, 2).payload(5);
    for (size_t i = 0; i < tcis.size(); ++i) {
      builder.vlan(tcis[i], i + 1 < tcis.size() ? kEtherTypeServiceVlan : kEtherTypeVlan);
    }
    return builder.build();
  };
  PacketMeta plain;
  ASSERT_EQ(parse_at(tagged({}), Side::kInside, plain), DropReason::kNone);
  EXPECT_EQ(plain.vlan_tags(), 0U);
  PacketMeta meta;
  ASSERT_EQ(parse_at(tagged({0x2005}), Side::kInside, meta), DropReason::kNone);
  EXPECT_EQ(meta.vlan_tags(), 1U);
  EXPECT_EQ(meta.vlan_tci[0], 0x2005);
  EXPECT_EQ(meta.key, plain.key);
  ASSERT_EQ(parse_at(tagged({7, 9}), Side::kInside, meta), DropReason::kNone);
  EXPECT_EQ(meta.vlan_tags(), 2U);
  EXPECT_EQ(meta.vlan_tci[0], 7) << "the outermost first";
  EXPECT_EQ(meta.vlan_tci[1], 9);
  EXPECT_EQ(meta.l3_offset, 22);
  EXPECT_EQ(meta.l4_offset, 42);
  EXPECT_EQ(reason_of(tagged({7, 8, 9})), DropReason::kUnsupportedEtherType);
}

// ---- IPv6.

constexpr char kInside6[] = "2001:db8::2";
constexpr char kRemote6[] = "2001:db8:1::7";
constexpr char kRouter6[] = "2001:db8:2::1";

TEST(Parse, Ipv6WithEachExtensionHeader) {
  const Bytes frame = PacketBuilder::tcp(kInside6, 40000, kRemote6, 443, kTcpSyn)
                          .hop_by_hop(16)
                          .destination_options()
                          .routing(4, 0)
                          .authentication(24)
                          .destination_options(24)
                          .payload(10)
                          .padding(3)
                          .build();
  PacketMeta meta;
  ASSERT_EQ(parse_at(frame, Side::kInside, meta), DropReason::kNone);
  EXPECT_EQ(meta.l3_offset, 14);
  EXPECT_EQ(meta.l4_offset, 14 + 40 + 16 + 8 + 8 + 24 + 24);
  EXPECT_EQ(meta.length, frame.size() - 3);
  EXPECT_EQ(meta.protocol(), kProtocolTcp);
  EXPECT_EQ(meta.tcp_flags, kTcpSyn);
  EXPECT_EQ(meta.key.family, Family::kIpv6);
  EXPECT_EQ(meta.key.src, fold_address(ipv6_address(kInside6), kSecret));
  EXPECT_EQ(meta.key.dst_port.host(), 443);
  EXPECT_EQ(meta.addresses.src, ipv6_address(kInside6));
  EXPECT_EQ(meta.addresses.dst, ipv6_address(kRemote6));
  EXPECT_FALSE(meta.is_routed);
  EXPECT_TRUE(l4_checksum_holds(frame.data(), meta));
}

TEST(Parse, Ipv6AnswersHaveTheReversedKey) {
  PacketMeta request, reply;
  ASSERT_EQ(
      parse_at(PacketBuilder::echo_request(kInside6, kRemote6, 77).build(), Side::kInside, request),
      DropReason::kNone);
  ASSERT_EQ(
      parse_at(PacketBuilder::echo_reply(kRemote6, kInside6, 77).build(), Side::kOutside, reply),
      DropReason::kNone);
  EXPECT_EQ(request.key.src_port.host(), 77);
  EXPECT_EQ(reply.key, request.key.reversed());
  EXPECT_EQ(reply.addresses, request.addresses.reversed());
}

TEST(Parse, Icmpv6ErrorHasTheKeyOfAnAnswerToTheQuotedPacket) {
  const Bytes packets[] = {
      PacketBuilder::tcp(kInside6, 40000, kRemote6, 443, kTcpAck).hop_by_hop().payload(20).build(),
      PacketBuilder::udp(kInside6, 40000, kRemote6, 53).payload(20).build(),
      PacketBuilder::echo_request(kInside6, kRemote6, 77).destination_options().payload(9).build(),
      PacketBuilder::udp(kInside6, 1, kRemote6, 2).protocol(47).payload(20).build()};
  for (const Bytes& about : packets) {
    for (const uint8_t type :
         {kIcmpv6Unreachable, kIcmpv6PacketTooBig, kIcmpv6TimeExceeded, kIcmpv6ParameterProblem}) {
      PacketMeta quoted, error;
      ASSERT_EQ(parse_at(about, Side::kInside, quoted), DropReason::kNone);
      const Bytes frame = PacketBuilder::icmp_error(kRouter6, kInside6, type, 0, about, 16).build();
      ASSERT_EQ(parse_at(frame, Side::kOutside, error), DropReason::kNone);
      EXPECT_EQ(error.key, quoted.key.reversed());
      EXPECT_EQ(error.addresses, quoted.addresses.reversed());
      EXPECT_EQ(error.protocol(), kProtocolIcmpv6);
      EXPECT_EQ(error.inner_l3_offset, 14 + 40 + 8);
      EXPECT_EQ(error.inner_l4_offset, error.inner_l3_offset + quoted.l4_offset - quoted.l3_offset);
    }
  }
}

TEST(Parse, FragmentsAreForTheSwitch) {
  PacketMeta meta;
  const Bytes fragment = PacketBuilder::udp(kInside6, 1, kRemote6, 2)
                             .hop_by_hop()
                             .ipv6_fragment(8 * 8 | 1, 5)
                             .payload(8)
                             .build();
  ASSERT_EQ(parse_at(fragment, Side::kInside, meta), DropReason::kFragment);
  EXPECT_EQ(meta.fragment_header_offset, 14 + 40 + 8);
  EXPECT_EQ(meta.l4_offset, meta.fragment_header_offset + 8);
  EXPECT_EQ(meta.length, fragment.size());
  EXPECT_EQ(meta.key.protocol, kProtocolUdp);
  EXPECT_EQ(meta.addresses.src, ipv6_address(kInside6));
  // RFC 6946: whole, though it has the header.
  const Bytes atomic = PacketBuilder::udp(kInside6, 1, kRemote6, 2).ipv6_fragment(0).build();
  ASSERT_EQ(parse_at(atomic, Side::kInside, meta), DropReason::kNone);
  EXPECT_EQ(meta.l4_offset, 14 + 40 + 8);
  const Bytes old = PacketBuilder::udp(kInside, 1, kRemote, 2).fragment(0x2001).build();
  ASSERT_EQ(parse_at(old, Side::kInside, meta), DropReason::kFragment);
  EXPECT_EQ(meta.l4_offset, 34);
}

Bytes ipv6_filled(size_t bytes) {
  return Bytes(bytes, 0);
}

TEST(Parse, NeighbourDiscoveryAndMldAreForTheSwitch) {
  struct Message {
    const char* name;
    PacketBuilder packet;
    uint8_t hop_limit;
    DropReason result;
  };
  const auto message = [](uint8_t type, size_t body_bytes, const char* from = "fe80::1") {
    return PacketBuilder::icmpv6(from, "ff02::1", type, 0, ipv6_filled(body_bytes));
  };
  const Message messages[] = {
      {"router solicitation of one without an address", message(133, 4, "::"), 255,
       DropReason::kNeighbourDiscovery},
      {"router advertisement", message(134, 12), 255, DropReason::kNeighbourDiscovery},
      {"neighbour solicitation", message(135, 20), 255, DropReason::kNeighbourDiscovery},
      {"neighbour advertisement", message(136, 28), 255, DropReason::kNeighbourDiscovery},
      {"redirect", message(137, 36), 255, DropReason::kNeighbourDiscovery},
      {"from elsewhere", message(135, 20), 254, DropReason::kBadNeighbourDiscovery},
      {"short", message(135, 19), 255, DropReason::kBadNeighbourDiscovery},
      {"listener report", message(143, 4, "::").hop_by_hop(), 1, DropReason::kMulticastListener},
      {"listener query", message(130, 20), 1, DropReason::kMulticastListener},
      {"listener query from elsewhere", message(130, 20), 2, DropReason::kUnsupportedIcmp},
      {"node information", message(139, 20), 255, DropReason::kUnsupportedIcmp},
  };
  for (const Message& one : messages) {
    PacketMeta meta;
    const Bytes frame = PacketBuilder(one.packet).hop_limit(one.hop_limit).build();
    EXPECT_EQ(parse_at(frame, Side::kInside, meta), one.result) << one.name;
    Bytes broken = frame;
    broken.back() ^= 1;
    const DropReason reason = parse_at(broken, Side::kInside, meta);
    EXPECT_NE(reason, DropReason::kNeighbourDiscovery) << one.name;
    EXPECT_NE(reason, DropReason::kMulticastListener) << one.name;
  }
}

TEST(Parse, Ipv6Refusals) {
  const auto udp = [] { return PacketBuilder::udp(kInside6, 1, kRemote6, 2).payload(8); };
  const auto from = [](const char* source) {
    return PacketBuilder::udp(source, 1, kRemote6, 2).build();
  };
  PacketBuilder nine = udp(), eight = udp(), long_ones = udp();
  for (int i = 0; i < 9; ++i) nine.destination_options();
  for (int i = 0; i < 8; ++i) eight.destination_options(32);
  for (int i = 0; i < 2; ++i) long_ones.destination_options(136);
  EXPECT_EQ(reason_of(eight.build()), DropReason::kNone) << "256 bytes in 8 headers";
  const Bytes error = PacketBuilder::icmp_error(kRouter6, kInside6, 1, 0, udp().build()).build();
  const Bytes echo = PacketBuilder::echo_request(kInside6, kRemote6, 1).build();
  const auto with = [](Bytes frame, size_t at, uint8_t value) {
    frame[at] = value;
    return frame;
  };
  const Refusal refusals[] = {
      {"version 4", with(udp().build(), 14, 0x40), DropReason::kBadIpv6Header},
      {"payload beyond frame", with(udp().build(), 19, 17), DropReason::kTruncatedIpv6},
      {"jumbogram", with(udp().hop_by_hop().build(), 19, 0), DropReason::kTruncatedIpv6},
      {"nine extension headers", nine.build(), DropReason::kIpv6Extensions},
      {"272 bytes of them", long_ones.build(), DropReason::kIpv6Extensions},
      {"hop-by-hop second", udp().destination_options().hop_by_hop().build(),
       DropReason::kIpv6Extensions},
      {"two fragment headers", udp().ipv6_fragment(0).ipv6_fragment(0).build(),
       DropReason::kIpv6Extensions},
      {"authentication of 20 bytes", udp().authentication(20).build(), DropReason::kIpv6Extensions},
      {"authentication of 8 bytes", udp().authentication(8).build(), DropReason::kIpv6Extensions},
      {"extension beyond packet", with(udp().hop_by_hop().build(), 55, 3),
       DropReason::kTruncatedIpv6},
      {"routing type 0", udp().routing(0, 0).build(), DropReason::kIpv6RoutingType0},
      {"fragment of 9 bytes, not the last",
       PacketBuilder::udp(kInside6, 1, kRemote6, 2).payload(1).ipv6_fragment(1).build(),
       DropReason::kBadFragment},
      {"fragment beyond 64 KiB", udp().ipv6_fragment(0xfff8).build(), DropReason::kBadFragment},
      {"no next header", udp().protocol(kNoNextHeader).build(), DropReason::kUnsupportedProtocol},
      {"ICMP over IPv6", udp().protocol(kProtocolIcmp).build(), DropReason::kUnsupportedProtocol},
      {"source unspecified", from("::"), DropReason::kBadSource},
      {"source loopback", from("::1"), DropReason::kBadSource},
      {"source multicast", from("ff02::1"), DropReason::kBadSource},
      {"ICMPv6 error checksum", with(error, 60, 1), DropReason::kBadIcmpChecksum},
      {"error about error", PacketBuilder::icmp_error(kRouter6, kInside6, 1, 0, error).build(),
       DropReason::kUnsupportedIcmp},
      {"error about a later fragment",
       PacketBuilder::icmp_error(kRouter6, kInside6, 1, 0, udp().ipv6_fragment(8).build(), 16)
           .build(),
       DropReason::kUnsupportedFragment},
      {"error that quotes 7 bytes of L4",
       PacketBuilder::icmp_error(kRouter6, kInside6, 1, 0, echo, 7).build(),
       DropReason::kTruncatedL4},
      {"TCP in 19 bytes",
       PacketBuilder::udp(kInside6, 1, kRemote6, 2).payload(11).protocol(kProtocolTcp).build(),
       DropReason::kTruncatedL4},
  };
  for (const Refusal& refusal : refusals) {
    EXPECT_EQ(reason_of(refusal.frame), refusal.reason)
        << refusal.description << ": " << drop_reason_name(reason_of(refusal.frame));
  }
}

TEST(Parse, OtherProtocolsAreOfFlowsWithoutPorts) {
  for (const char* source : {kInside, kInside6}) {
    const char* remote = source == kInside ? kRemote : kRemote6;
    for (const uint8_t protocol : {uint8_t{47}, uint8_t{50}, uint8_t{132}}) {
      PacketMeta meta;
      const Bytes frame = PacketBuilder::udp(source, 7, remote, 8).protocol(protocol).build();
      ASSERT_EQ(parse_at(frame, Side::kInside, meta), DropReason::kNone);
      EXPECT_EQ(meta.key.protocol, protocol);
      EXPECT_EQ(meta.key.src_port.host() + meta.key.dst_port.host(), 0);
      EXPECT_TRUE(l4_checksum_holds(frame.data(), meta));
    }
  }
}

TEST(Parse, L4ChecksumsAreVerifiedWhereAsked) {
  for (const char* source : {kInside, kInside6}) {
    const char* remote = source == kInside ? kRemote : kRemote6;
    const PacketBuilder packets[] = {PacketBuilder::tcp(source, 1, remote, 2, kTcpAck),
                                     PacketBuilder::udp(source, 1, remote, 2),
                                     PacketBuilder::echo_request(source, remote, 3)};
    for (PacketBuilder packet : packets) {
      Bytes frame = packet.payload(9).vlan(3).build();
      PacketMeta meta;
      ASSERT_EQ(parse_at(frame, Side::kInside, meta), DropReason::kNone);
      EXPECT_TRUE(l4_checksum_holds(frame.data(), meta));
      frame.back() ^= 0x10;
      EXPECT_FALSE(l4_checksum_holds(frame.data(), meta));
    }
    const Bytes without = PacketBuilder::udp(source, 1, remote, 2).without_udp_checksum().build();
    PacketMeta meta;
    ASSERT_EQ(parse_at(without, Side::kInside, meta), DropReason::kNone);
    EXPECT_TRUE(l4_checksum_holds(without.data(), meta));
  }
}

TEST(Parse, Ipv4Options) {
  const Bytes plain = PacketBuilder::udp(kInside, 1, kRemote, 2).ip_options(2).build();
  const auto options = [&](std::initializer_list<uint8_t> bytes) {
    return changed(plain, [&](Bytes& f) { std::copy(bytes.begin(), bytes.end(), f.begin() + 34); });
  };
  EXPECT_EQ(reason_of(options({1, 148, 4, 0, 0})), DropReason::kNone) << "router alert";
  EXPECT_EQ(reason_of(options({0, 7, 0, 9})), DropReason::kNone) << "nothing after the end";
  EXPECT_EQ(reason_of(options({131, 4, 4, 0})), DropReason::kIpv4SourceRoute);
  EXPECT_EQ(reason_of(options({1, 137, 3, 4})), DropReason::kIpv4SourceRoute);
  EXPECT_EQ(reason_of(options({7, 9})), DropReason::kBadIpv4Header) << "beyond the header";
  EXPECT_EQ(reason_of(options({7, 1})), DropReason::kBadIpv4Header) << "shorter than itself";
  EXPECT_EQ(reason_of(options({1, 1, 1, 1, 1, 1, 1, 7})), DropReason::kBadIpv4Header);
}

// ---- Against the naive parser.

class RandomFrames {
 public:
  explicit RandomFrames(uint32_t seed) : random_(seed) {}

  Bytes next() {
    PacketBuilder builder = packet(true);
    for (size_t tags = one_in(6) ? random_() % 4 : 0; tags > 0; --tags) {
      builder.vlan(static_cast<uint16_t>(random_()),
                   one_in(2) ? kEtherTypeVlan : kEtherTypeServiceVlan);
    }
    Bytes frame = builder.padding(one_in(4) ? random_() % 9 : 0).build();
    for (size_t change = one_in(2) ? random_() % 3 : 0; change > 0; --change) {
      frame[random_() % frame.size()] = static_cast<uint8_t>(random_());
    }
    if (one_in(8)) frame.resize(random_() % frame.size());
    return Bytes(frame.begin(), frame.end());
  }

 private:
  bool one_in(uint32_t n) { return random_() % n == 0; }

  PacketBuilder packet(bool may_quote) {
    const bool wide = !one_in(4);
    const char* src = wide ? kInside6 : kInside;
    const char* dst = wide ? kRemote6 : kRemote;
    PacketBuilder builder = upper_layer(may_quote, wide, src, dst);
    constexpr uint8_t kHops[] = {1, 64, 255, 255};
    builder.hop_limit(kHops[random_() % 4]);
    if (one_in(3)) builder.payload(random_() % 40);
    if (one_in(12)) builder.protocol(static_cast<uint8_t>(random_()));
    if (!wide) {
      if (one_in(4)) builder.ip_options(random_() % 11);
      if (one_in(16)) builder.raw_ip_options(Bytes(8, static_cast<uint8_t>(130 + random_() % 9)));
      if (one_in(8)) builder.fragment(static_cast<uint16_t>(random_()));
    } else if (one_in(2)) {
      for (size_t n = one_in(8) ? random_() % 11 : random_() % 4; n > 0; --n) extend(builder);
    }
    return builder;
  }
  PacketBuilder upper_layer(bool may_quote, bool wide, const char* src, const char* dst) {
    switch (random_() % 8) {
      case 0:
        return PacketBuilder::tcp(src, 1, dst, 2, static_cast<uint8_t>(random_()))
            .tcp_options(random_() % 11);
      case 1:
        return PacketBuilder::udp(src, 3, dst, 4);
      case 2:
        return PacketBuilder::echo_request(src, dst, 5);
      case 3:
      case 4: {
        if (!wide) return PacketBuilder::echo_reply(src, dst, 6);
        const auto type = static_cast<uint8_t>(128 + random_() % 18);
        return PacketBuilder::icmpv6(one_in(4) ? "::" : src, dst, type, 0, Bytes(random_() % 40));
      }
      default:
        return may_quote ? error(wide, src, dst) : PacketBuilder::udp(src, 7, dst, 8);
    }
  }
  PacketBuilder error(bool wide, const char* src, const char* dst) {
    for (;;) {
      const Bytes about = packet(one_in(4)).build();
      if ((about[14] >> 4 == 6) != wide) continue;
      const size_t header = wide ? 54 : 14 + (about[14] & 0x0f) * 4U;
      const auto type = static_cast<uint8_t>(wide ? 1 + random_() % 4 : 3);
      return PacketBuilder::icmp_error(src, dst, type, 0, about,
                                       random_() % (about.size() - header + 1));
    }
  }
  void extend(PacketBuilder& builder) {
    switch (random_() % 6) {
      case 0:
        builder.hop_by_hop(8 + 8 * (random_() % 3));
        return;
      case 1:
        builder.routing(static_cast<uint8_t>(random_() % 4), static_cast<uint8_t>(random_() % 2));
        return;
      case 2:
        builder.authentication(8 + 4 * (random_() % 5));
        return;
      case 3:
        builder.ipv6_fragment(one_in(2) ? 0 : static_cast<uint16_t>(random_() % 64));
        return;
      default:
        builder.destination_options(one_in(8) ? 200 : 8 + 8 * (random_() % 4));
    }
  }

  std::mt19937 random_;
};

TEST(Parse, AgreesWithTheNaiveParser) {
  const uint32_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  RandomFrames frames(seed);
  std::set<DropReason> reasons;
  for (int round = 0; round < 100'000; ++round) {
    const Bytes frame = frames.next();
    for (const Side side : {Side::kInside, Side::kOutside}) {
      ASSERT_EQ(parse_difference(frame, side, kSecret), "") << "round " << round;
    }
    reasons.insert(reason_of(frame));
  }
  // Every result that parse() has.
  EXPECT_EQ(reasons.size(), 24U);
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
