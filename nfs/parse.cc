#include "nfs/parse.h"

#include "nfs/checksum.h"
#include "nfs/headers.h"

namespace flowkeep {
namespace {

constexpr uint16_t kL3Offset = sizeof(EthernetHeader);
// An ICMP error quotes the IPv4 header and at least 8 bytes of what follows (RFC 792).
constexpr uint16_t kQuotedL4Bytes = 8;

bool valid_source(Be32 address) {
  const uint32_t host = address.host();
  const uint32_t first_octet = host >> 24;
  // 224.0.0.0 and above: multicast, reserved, broadcast (RFC 1122 section 3.2.1.3).
  return first_octet != 0 && first_octet != 127 && first_octet < 224;
}

// The identifier takes the place of the inside host's port: see FlowKey.
void set_icmp_identifier(FlowKey& key, Be16 identifier) {
  key.src_port = key.side == Side::kInside ? identifier : Be16{};
  key.dst_port = key.side == Side::kInside ? Be16{} : identifier;
}

bool is_echo(uint8_t type) {
  return type == kIcmpEchoRequest || type == kIcmpEchoReply;
}

// Source quench is obsolete and to be ignored (RFC 6633); a redirect is for one link only (RFC
// 792).
bool is_error(uint8_t type) {
  return type == kIcmpUnreachable || type == kIcmpTimeExceeded || type == kIcmpParameterProblem;
}

// Header and total length of the IPv4 header at kL3Offset; sets meta.length to the packet's end.
DropReason parse_ipv4(const uint8_t* frame, uint16_t length, PacketMeta& meta) {
  const auto* ip = header_at<Ipv4Header>(frame, length, kL3Offset);
  if (ip == nullptr) return DropReason::kTruncatedIpv4;
  const uint16_t header_bytes = ip->header_bytes();
  const uint16_t total_bytes = ip->total_length.get().host();
  if (ip->version() != 4 || header_bytes < sizeof(Ipv4Header) || total_bytes < header_bytes) {
    return DropReason::kBadIpv4Header;
  }
  if (total_bytes > length - kL3Offset) return DropReason::kTruncatedIpv4;
  if (internet_checksum(frame + kL3Offset, header_bytes).raw != 0)
    return DropReason::kBadIpv4Checksum;
  if (ip->more_fragments() || ip->fragment_offset() != 0) return DropReason::kUnsupportedFragment;
  if (!valid_source(ip->src.get())) return DropReason::kBadSource;
  meta.length = static_cast<uint16_t>(kL3Offset + total_bytes);
  meta.l3_offset = kL3Offset;
  meta.l4_offset = static_cast<uint16_t>(kL3Offset + header_bytes);
  meta.key.src = ip->src.get();
  meta.key.dst = ip->dst.get();
  meta.key.protocol = ip->protocol;
  return DropReason::kNone;
}

DropReason parse_tcp(const uint8_t* frame, PacketMeta& meta) {
  const auto* tcp = header_at<TcpHeader>(frame, meta.length, meta.l4_offset);
  if (tcp == nullptr) return DropReason::kTruncatedL4;
  if (tcp->header_bytes() < sizeof(TcpHeader) ||
      tcp->header_bytes() > meta.length - meta.l4_offset) {
    return DropReason::kBadTcpHeader;
  }
  meta.key.src_port = tcp->src_port.get();
  meta.key.dst_port = tcp->dst_port.get();
  meta.tcp_flags = tcp->flags;
  return DropReason::kNone;
}

DropReason parse_udp(const uint8_t* frame, PacketMeta& meta) {
  const auto* udp = header_at<UdpHeader>(frame, meta.length, meta.l4_offset);
  if (udp == nullptr) return DropReason::kTruncatedL4;
  const uint16_t udp_bytes = udp->length.get().host();
  if (udp_bytes < sizeof(UdpHeader) || udp_bytes > meta.length - meta.l4_offset) {
    return DropReason::kBadUdpLength;
  }
  meta.key.src_port = udp->src_port.get();
  meta.key.dst_port = udp->dst_port.get();
  return DropReason::kNone;
}

// The L4 header that an ICMP error quotes, of which only 8 bytes need be there.
DropReason parse_quoted_l4(const uint8_t* frame, const PacketMeta& meta, FlowKey& quoted) {
  if (meta.length - meta.inner_l4_offset < kQuotedL4Bytes) return DropReason::kTruncatedL4;
  switch (quoted.protocol) {
    case kProtocolTcp:
    case kProtocolUdp: {
      const auto& ports = checked_header<UdpHeader>(frame, meta.inner_l4_offset);
      quoted.src_port = ports.src_port.get();
      quoted.dst_port = ports.dst_port.get();
      return DropReason::kNone;
    }
    case kProtocolIcmp: {
      const auto& icmp = checked_header<IcmpHeader>(frame, meta.inner_l4_offset);
      // No errors about errors (RFC 1122 section 3.2.2, RFC 5508 REQ-3d).
      if (!is_echo(icmp.type)) return DropReason::kUnsupportedIcmp;
      set_icmp_identifier(quoted, icmp.identifier.get());
      return DropReason::kNone;
    }
    default:
      return DropReason::kUnsupportedProtocol;
  }
}

// RFC 5508 REQ-3: both checksums are verified before a mapping is looked for.
DropReason parse_icmp_error(const uint8_t* frame, PacketMeta& meta) {
  const auto icmp_bytes = static_cast<size_t>(meta.length - meta.l4_offset);
  if (internet_checksum(frame + meta.l4_offset, icmp_bytes).raw != 0) {
    return DropReason::kBadIcmpChecksum;
  }
  const auto inner = static_cast<uint16_t>(meta.l4_offset + sizeof(IcmpHeader));
  const auto* ip = header_at<Ipv4Header>(frame, meta.length, inner);
  if (ip == nullptr) return DropReason::kTruncatedIpv4;
  const uint16_t header_bytes = ip->header_bytes();
  if (ip->version() != 4 || header_bytes < sizeof(Ipv4Header)) return DropReason::kBadIpv4Header;
  if (header_bytes > meta.length - inner) return DropReason::kTruncatedIpv4;
  if (internet_checksum(frame + inner, header_bytes).raw != 0) return DropReason::kBadIcmpChecksum;
  if (ip->fragment_offset() != 0) return DropReason::kUnsupportedFragment;

  meta.inner_l3_offset = inner;
  meta.inner_l4_offset = static_cast<uint16_t>(inner + header_bytes);
  // The quoted packet went the other way, so it had entered by the other side.
  FlowKey quoted{ip->src.get(), ip->dst.get(), {}, {}, ip->protocol, opposite(meta.side), 0};
  const DropReason reason = parse_quoted_l4(frame, meta, quoted);
  meta.key = quoted.reversed();
  return reason;
}

DropReason parse_icmp(const uint8_t* frame, PacketMeta& meta) {
  const auto* icmp = header_at<IcmpHeader>(frame, meta.length, meta.l4_offset);
  if (icmp == nullptr) return DropReason::kTruncatedL4;
  if (is_error(icmp->type)) return parse_icmp_error(frame, meta);
  if (!is_echo(icmp->type)) return DropReason::kUnsupportedIcmp;
  set_icmp_identifier(meta.key, icmp->identifier.get());
  return DropReason::kNone;
}

DropReason parse_l4(const uint8_t* frame, PacketMeta& meta) {
  switch (meta.key.protocol) {
    case kProtocolTcp:
      return parse_tcp(frame, meta);
    case kProtocolUdp:
      return parse_udp(frame, meta);
    case kProtocolIcmp:
      return parse_icmp(frame, meta);
    default:
      return DropReason::kUnsupportedProtocol;
  }
}

}  // namespace

DropReason parse(const uint8_t* frame, uint16_t length, Side side, HashSecret secret,
                 PacketMeta& meta) {
  const auto* ethernet = header_at<EthernetHeader>(frame, length, 0);
  if (ethernet == nullptr) return DropReason::kTruncatedEthernet;
  const uint16_t type = ethernet->type.get().host();
  if (type != kEtherTypeIpv4) {
    return type == kEtherTypeIpv6 ? DropReason::kUnsupportedIpv6
                                  : DropReason::kUnsupportedEtherType;
  }
  meta.key = FlowKey{};
  meta.key.side = meta.side = side;
  meta.inner_l3_offset = meta.inner_l4_offset = 0;
  meta.tcp_flags = 0;
  meta.verdict = Verdict::kForward;
  meta.reason = DropReason::kNone;
  DropReason reason = parse_ipv4(frame, length, meta);
  if (reason == DropReason::kNone) reason = parse_l4(frame, meta);
  meta.hash = hash_key(meta.key, secret);
  return reason;
}

}  // namespace flowkeep
