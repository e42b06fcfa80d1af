#include "nfs/parse.h"

#include <optional>

#include "nfs/checksum.h"
#include "nfs/headers.h"

namespace flowkeep {
namespace {

// An ICMP error quotes the IP header and at least 8 bytes of what follows (RFC 792).
constexpr uint16_t kQuotedL4Bytes = 8;
constexpr size_t kMaxIpBytes = 65535;

bool valid_source(Be32 address) {
  const uint32_t host = address.host();
  const uint32_t first_octet = host >> 24;
  // 224.0.0.0 and above: multicast, reserved, broadcast (RFC 1122 section 3.2.1.3).
  return first_octet != 0 && first_octet != 127 && first_octet < 224;
}

constexpr Ipv6Address kUnspecified = {};
constexpr Ipv6Address kLoopback = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};

// The unspecified address is a source where nodes have none yet: see parse_icmpv6().
bool valid_source(const Ipv6Address& address) {
  return address[0] != 0xff && address != kLoopback;  // RFC 4291 sections 2.5.3 and 2.7
}

// The identifier takes the place of the inside host's port: see FlowKey.
void set_icmp_identifier(FlowKey& key, Be16 identifier) {
  key.src_port = key.side == Side::kInside ? identifier : Be16{};
  key.dst_port = key.side == Side::kInside ? Be16{} : identifier;
}

bool is_echo(uint8_t type) {
  return type == kIcmpEchoRequest || type == kIcmpEchoReply;
}
bool is_echo6(uint8_t type) {
  return type == kIcmpv6EchoRequest || type == kIcmpv6EchoReply;
}

// Source quench is obsolete and to be ignored (RFC 6633); a redirect is for one link only (RFC
// 792).
bool is_error(uint8_t type) {
  return type == kIcmpUnreachable || type == kIcmpTimeExceeded || type == kIcmpParameterProblem;
}
bool is_error6(uint8_t type) {
  return type >= kIcmpv6Unreachable && type <= kIcmpv6ParameterProblem;
}

bool is_vlan(uint16_t ether_type) {
  return ether_type == kEtherTypeVlan || ether_type == kEtherTypeServiceVlan;
}

// Steps over the tags behind the Ethernet header; `type` becomes what they carry.
DropReason parse_tags(const uint8_t* frame, uint16_t length, uint16_t& type, PacketMeta& meta) {
  for (size_t tags = 0; is_vlan(type); ++tags) {
    if (tags == kMaxVlanTags) return DropReason::kUnsupportedEtherType;
    const auto* tag = header_at<VlanTag>(frame, length, meta.l3_offset);
    if (tag == nullptr) return DropReason::kTruncatedEthernet;
    meta.vlan_tci[tags] = tag->tci.get().host();
    meta.l3_offset = static_cast<uint16_t>(meta.l3_offset + sizeof(VlanTag));
    type = tag->type.get().host();
  }
  return DropReason::kNone;
}

// `bytes`: what the fragment carries, from `offset` of what the whole packet carries beyond
// `before` bytes of headers.
DropReason fragment_reason(size_t before, size_t offset, size_t bytes, bool more) {
  const bool is_bad =
      bytes == 0 || (more && bytes % 8 != 0) || before + offset + bytes > kMaxIpBytes;
  return is_bad ? DropReason::kBadFragment : DropReason::kFragment;
}

// ---- IPv4.

DropReason check_options(const uint8_t* options, size_t bytes) {
  for (size_t at = 0; at < bytes && options[at] != kIpv4EndOfOptions;) {
    if (options[at] == kIpv4NoOperation) {
      ++at;
      continue;
    }
    const size_t left = bytes - at;
    if (left < 2 || options[at + 1] < 2 || options[at + 1] > left) {
      return DropReason::kBadIpv4Header;
    }
    if (options[at] == kIpv4LooseSourceRoute || options[at] == kIpv4StrictSourceRoute) {
      return DropReason::kIpv4SourceRoute;
    }
    at += options[at + 1];
  }
  return DropReason::kNone;
}

// Header and total length of the IPv4 header at l3_offset; sets meta.length to the packet's end.
DropReason parse_ipv4(const uint8_t* frame, uint16_t length, PacketMeta& meta) {
  const uint16_t l3 = meta.l3_offset;
  const auto* ip = header_at<Ipv4Header>(frame, length, l3);
  if (ip == nullptr) return DropReason::kTruncatedIpv4;
  const uint16_t header_bytes = ip->header_bytes();
  const uint16_t total_bytes = ip->total_length.get().host();
  if (ip->version() != 4 || header_bytes < sizeof(Ipv4Header) || total_bytes < header_bytes) {
    return DropReason::kBadIpv4Header;
  }
  if (total_bytes > length - l3) return DropReason::kTruncatedIpv4;
  if (internet_checksum(frame + l3, header_bytes).raw != 0) return DropReason::kBadIpv4Checksum;
  if (header_bytes != sizeof(Ipv4Header)) [[unlikely]] {
    const DropReason reason =
        check_options(frame + l3 + sizeof(Ipv4Header), header_bytes - sizeof(Ipv4Header));
    if (reason != DropReason::kNone) return reason;
  }
  if (!valid_source(ip->src.get())) return DropReason::kBadSource;
  meta.length = static_cast<uint16_t>(l3 + total_bytes);
  meta.l4_offset = static_cast<uint16_t>(l3 + header_bytes);
  meta.key.src = ip->src.get();
  meta.key.dst = ip->dst.get();
  meta.key.protocol = ip->protocol;
  if (ip->more_fragments() || ip->fragment_offset() != 0) [[unlikely]] {
    return fragment_reason(header_bytes, ip->fragment_offset() * size_t{8},
                           static_cast<size_t>(total_bytes - header_bytes), ip->more_fragments());
  }
  return DropReason::kNone;
}

// ---- IPv6.

// What lies behind the extension headers.
struct UpperLayer {
  uint16_t offset = 0;
  uint8_t protocol = 0;
  uint16_t fragment_header_offset = 0;  // 0: none
  bool is_routed = false;
};

// 0: none of them has so few bytes.
uint16_t extension_bytes(uint8_t kind, const Ipv6Extension& header) {
  if (kind == kFragmentHeader) return sizeof(Ipv6Fragment);
  if (kind != kAuthenticationHeader) return static_cast<uint16_t>((header.length + 1) * 8);
  // At least its fixed part, and for IPv6 a multiple of 8 bytes (RFC 4302 section 2.2).
  const auto bytes = static_cast<uint16_t>((header.length + 2) * 4);
  return bytes >= 12 && bytes % 8 == 0 ? bytes : 0;
}

bool is_extension(uint8_t kind) {
  return kind == kHopByHopOptions || kind == kRoutingHeader || kind == kFragmentHeader ||
         kind == kAuthenticationHeader || kind == kDestinationOptions;
}

// Is this a piece of a packet? An "atomic" fragment is a whole one (RFC 6946).
bool is_piece(const Ipv6Fragment& header) {
  return header.more_fragments() || header.fragment_offset() != 0;
}

// From upper.offset, where a header of the kind upper.protocol begins, to what is no extension, or
// of a piece to what it carries. `quoted`: of a first piece further, because all of its headers
// should be there.
DropReason walk_extensions(const uint8_t* frame, uint16_t end, bool quoted, UpperLayer& upper) {
  const uint16_t begin = upper.offset;
  for (int count = 0; is_extension(upper.protocol); ++count) {
    const uint8_t kind = upper.protocol;
    const auto* header = header_at<Ipv6Extension>(frame, end, upper.offset);
    if (header == nullptr) return DropReason::kTruncatedIpv6;
    const uint16_t bytes = extension_bytes(kind, *header);
    if (bytes > end - upper.offset) return DropReason::kTruncatedIpv6;
    const bool is_misplaced = (kind == kHopByHopOptions && count != 0) ||
                              (kind == kFragmentHeader && upper.fragment_header_offset != 0);
    if (bytes == 0 || is_misplaced || count == kMaxExtensionHeaders ||
        upper.offset + bytes - begin > kMaxExtensionBytes) {
      return DropReason::kIpv6Extensions;
    }
    if (kind == kRoutingHeader) {
      if (header->routing_type == 0) return DropReason::kIpv6RoutingType0;
      upper.is_routed |= header->segments_left != 0;
    }
    const uint16_t at = upper.offset;
    upper.protocol = header->next_header;
    upper.offset = static_cast<uint16_t>(at + bytes);
    if (kind != kFragmentHeader) continue;
    upper.fragment_header_offset = at;
    const auto& fragment = checked_header<Ipv6Fragment>(frame, at);
    if (is_piece(fragment) && (!quoted || fragment.fragment_offset() != 0)) break;
  }
  return DropReason::kNone;
}

// Headers and length of the IPv6 packet at l3_offset; sets meta.length to its end.
DropReason parse_ipv6(const uint8_t* frame, uint16_t length, HashSecret secret, PacketMeta& meta) {
  const uint16_t l3 = meta.l3_offset;
  const auto* ip = header_at<Ipv6Header>(frame, length, l3);
  if (ip == nullptr) return DropReason::kTruncatedIpv6;
  if (ip->version() != 6) return DropReason::kBadIpv6Header;
  const uint16_t payload_bytes = ip->payload_length.get().host();
  const auto payload = static_cast<uint16_t>(l3 + sizeof(Ipv6Header));
  if (payload_bytes > length - payload) return DropReason::kTruncatedIpv6;
  if (!valid_source(ip->addresses.src)) return DropReason::kBadSource;
  meta.length = static_cast<uint16_t>(payload + payload_bytes);
  UpperLayer upper = {.offset = payload, .protocol = ip->next_header};
  const DropReason reason = walk_extensions(frame, meta.length, false, upper);
  if (reason != DropReason::kNone) return reason;
  meta.l4_offset = upper.offset;
  meta.fragment_header_offset = upper.fragment_header_offset;
  meta.is_routed = upper.is_routed;
  meta.addresses = ip->addresses;
  meta.key = wide_key(meta.addresses, upper.protocol, meta.side, secret);
  if (upper.fragment_header_offset == 0) return DropReason::kNone;
  const auto& fragment = checked_header<Ipv6Fragment>(frame, upper.fragment_header_offset);
  if (!is_piece(fragment)) return DropReason::kNone;
  if (meta.addresses.src == kUnspecified) return DropReason::kBadSource;
  // RFC 8200 section 4.5: what does not fit into the payload length of the whole packet.
  return fragment_reason(static_cast<size_t>(upper.fragment_header_offset - payload),
                         fragment.fragment_offset() * size_t{8},
                         static_cast<size_t>(meta.length - meta.l4_offset),
                         fragment.more_fragments());
}

// ---- What IP carries.

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

// Protocols of which a packet of this IP version may be, though nothing more is known of them: of
// one flow for each pair of hosts. Not what is a header of the other version's alone.
bool is_portless_protocol(uint8_t protocol, Family family) {
  if (protocol == kNoNextHeader) return false;
  if (family == Family::kIpv6) return protocol != kProtocolIcmp && !is_extension(protocol);
  return protocol != kProtocolIcmpv6 &&
         (protocol == kAuthenticationHeader || !is_extension(protocol));
}

// The L4 header that an ICMP error quotes, of which only 8 bytes need be there.
DropReason parse_quoted_l4(const uint8_t* frame, const PacketMeta& meta, FlowKey& quoted) {
  if (meta.length - meta.inner_l4_offset < kQuotedL4Bytes) return DropReason::kTruncatedL4;
  const bool is_wide = quoted.family == Family::kIpv6;
  if (quoted.protocol == kProtocolTcp || quoted.protocol == kProtocolUdp) {
    const auto& ports = checked_header<UdpHeader>(frame, meta.inner_l4_offset);
    quoted.src_port = ports.src_port.get();
    quoted.dst_port = ports.dst_port.get();
    return DropReason::kNone;
  }
  if (quoted.protocol == (is_wide ? kProtocolIcmpv6 : kProtocolIcmp)) {
    const auto& icmp = checked_header<IcmpHeader>(frame, meta.inner_l4_offset);
    // No errors about errors (RFC 1122 section 3.2.2, RFC 4443 section 2.4, RFC 5508 REQ-3d).
    if (!(is_wide ? is_echo6(icmp.type) : is_echo(icmp.type))) return DropReason::kUnsupportedIcmp;
    set_icmp_identifier(quoted, icmp.identifier.get());
    return DropReason::kNone;
  }
  return is_portless_protocol(quoted.protocol, quoted.family) ? DropReason::kNone
                                                              : DropReason::kUnsupportedProtocol;
}

// RFC 5508 REQ-3: both checksums are verified before a mapping is looked for.
DropReason parse_icmp_error(const uint8_t* frame, PacketMeta& meta) {
  if (!l4_checksum_holds(frame, meta)) return DropReason::kBadIcmpChecksum;
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
  FlowKey quoted{ip->src.get(), ip->dst.get(), {}, {}, ip->protocol, opposite(meta.side)};
  const DropReason reason = parse_quoted_l4(frame, meta, quoted);
  meta.key = quoted.reversed();
  return reason;
}

DropReason parse_icmpv6_error(const uint8_t* frame, HashSecret secret, PacketMeta& meta) {
  if (!l4_checksum_holds(frame, meta)) return DropReason::kBadIcmpChecksum;
  const auto inner = static_cast<uint16_t>(meta.l4_offset + sizeof(IcmpHeader));
  const auto* ip = header_at<Ipv6Header>(frame, meta.length, inner);
  if (ip == nullptr) return DropReason::kTruncatedIpv6;
  if (ip->version() != 6) return DropReason::kBadIpv6Header;
  UpperLayer upper = {.offset = static_cast<uint16_t>(inner + sizeof(Ipv6Header)),
                      .protocol = ip->next_header};
  DropReason reason = walk_extensions(frame, meta.length, true, upper);
  if (reason != DropReason::kNone) return reason;
  if (upper.fragment_header_offset != 0) {
    const auto& fragment = checked_header<Ipv6Fragment>(frame, upper.fragment_header_offset);
    if (fragment.fragment_offset() != 0) return DropReason::kUnsupportedFragment;
  }
  meta.inner_l3_offset = inner;
  meta.inner_l4_offset = upper.offset;
  FlowKey quoted = wide_key(ip->addresses, upper.protocol, opposite(meta.side), secret);
  reason = parse_quoted_l4(frame, meta, quoted);
  meta.key = quoted.reversed();
  meta.addresses = ip->addresses.reversed();
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

// The fewest bytes of a neighbour discovery message (RFC 4861 section 4), or nothing if it is none.
std::optional<uint16_t> neighbour_discovery_bytes(uint8_t type) {
  switch (type) {
    case kRouterSolicitation:
      return uint16_t{8};
    case kRouterAdvertisement:
      return uint16_t{16};
    case kNeighbourSolicitation:
    case kNeighbourAdvertisement:
      return uint16_t{24};
    case kNeighbourRedirect:
      return uint16_t{40};
    default:
      return std::nullopt;
  }
}

bool is_multicast_listener(uint8_t type) {
  return (type >= kMulticastListenerQuery && type <= kMulticastListenerDone) ||
         type == kMulticastListenerReport2;
}

DropReason parse_icmpv6(const uint8_t* frame, HashSecret secret, PacketMeta& meta) {
  const auto* icmp = header_at<IcmpHeader>(frame, meta.length, meta.l4_offset);
  if (icmp == nullptr) return DropReason::kTruncatedL4;
  const uint8_t hop_limit = checked_header<Ipv6Header>(frame, meta.l3_offset).hop_limit;
  if (const auto least_bytes = neighbour_discovery_bytes(icmp->type)) {
    const bool holds = hop_limit == 255 && icmp->code == 0 &&
                       meta.length - meta.l4_offset >= *least_bytes &&
                       l4_checksum_holds(frame, meta);
    return holds ? DropReason::kNeighbourDiscovery : DropReason::kBadNeighbourDiscovery;
  }
  if (is_multicast_listener(icmp->type)) {
    if (hop_limit != 1) return DropReason::kUnsupportedIcmp;  // RFC 3810 section 5
    return l4_checksum_holds(frame, meta) ? DropReason::kMulticastListener
                                          : DropReason::kBadIcmpChecksum;
  }
  if (meta.addresses.src == kUnspecified) return DropReason::kBadSource;
  if (is_error6(icmp->type)) return parse_icmpv6_error(frame, secret, meta);
  if (!is_echo6(icmp->type)) return DropReason::kUnsupportedIcmp;
  set_icmp_identifier(meta.key, icmp->identifier.get());
  return DropReason::kNone;
}

DropReason parse_l4(const uint8_t* frame, PacketMeta& meta) {
  switch (meta.key.protocol) {
    case kProtocolTcp:
      return parse_tcp(frame, meta);
    case kProtocolUdp:
      return parse_udp(frame, meta);
    default:
      return is_portless_protocol(meta.key.protocol, meta.key.family)
                 ? DropReason::kNone
                 : DropReason::kUnsupportedProtocol;
  }
}

DropReason parse_ipv4_packet(const uint8_t* frame, uint16_t length, PacketMeta& meta) {
  const DropReason reason = parse_ipv4(frame, length, meta);
  if (reason != DropReason::kNone) return reason;
  return meta.key.protocol == kProtocolIcmp ? parse_icmp(frame, meta) : parse_l4(frame, meta);
}

DropReason parse_ipv6_packet(const uint8_t* frame, uint16_t length, HashSecret secret,
                             PacketMeta& meta) {
  const DropReason reason = parse_ipv6(frame, length, secret, meta);
  if (reason != DropReason::kNone) return reason;
  if (meta.key.protocol == kProtocolIcmpv6) return parse_icmpv6(frame, secret, meta);
  if (meta.addresses.src == kUnspecified) return DropReason::kBadSource;
  return parse_l4(frame, meta);
}

}  // namespace

DropReason parse(const uint8_t* frame, uint16_t length, Side side, HashSecret secret,
                 PacketMeta& meta) {
  const auto* ethernet = header_at<EthernetHeader>(frame, length, 0);
  if (ethernet == nullptr) return DropReason::kTruncatedEthernet;
  meta.key = FlowKey{};
  meta.key.side = meta.side = side;
  meta.l3_offset = sizeof(EthernetHeader);
  meta.inner_l3_offset = meta.inner_l4_offset = 0;
  meta.tcp_flags = 0;
  meta.verdict = Verdict::kForward;
  meta.reason = DropReason::kNone;
  uint16_t type = ethernet->type.get().host();
  DropReason reason = DropReason::kNone;
  if (is_vlan(type)) [[unlikely]] {
    reason = parse_tags(frame, length, type, meta);
    if (reason != DropReason::kNone) return reason;
  }
  if (type == kEtherTypeIpv4) [[likely]] {
    reason = parse_ipv4_packet(frame, length, meta);
  } else if (type == kEtherTypeIpv6) {
    reason = parse_ipv6_packet(frame, length, secret, meta);
  } else {
    return DropReason::kUnsupportedEtherType;
  }
  meta.hash = hash_key(meta.key, secret);
  return reason;
}

bool l4_checksum_holds(const uint8_t* frame, const PacketMeta& meta) {
  const uint8_t protocol = meta.protocol();
  const uint8_t* segment = frame + meta.l4_offset;
  auto bytes = static_cast<uint16_t>(meta.length - meta.l4_offset);
  if (protocol == kProtocolUdp) {
    const auto& udp = checked_header<UdpHeader>(frame, meta.l4_offset);
    if (udp.checksum.get().raw == 0) return true;
    bytes = udp.length.get().host();
  }
  if (!meta.is_wide()) {
    if (protocol == kProtocolIcmp) return internet_checksum(segment, bytes).raw == 0;
    if (protocol != kProtocolTcp && protocol != kProtocolUdp) return true;
    const auto& ip = checked_header<Ipv4Header>(frame, meta.l3_offset);
    return l4_checksum(ip.src.get(), ip.dst.get(), protocol, segment, bytes).raw == 0;
  }
  const bool has_checksum =
      protocol == kProtocolTcp || protocol == kProtocolUdp || protocol == kProtocolIcmpv6;
  if (!has_checksum || meta.is_routed) return true;
  const auto& ip = checked_header<Ipv6Header>(frame, meta.l3_offset);
  return l4_checksum(ip.addresses, protocol, segment, bytes).raw == 0;
}

}  // namespace flowkeep
