// For tests and the fuzzer: parse() once more, slowly, byte by byte as the RFCs' figures show the
// headers, with nothing in common with nfs/parse.cc but the names of its results.
// parse_difference() compares the two.
#pragma once

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "nfs/packet_builder.h"
#include "nfs/parse.h"

namespace flowkeep {

struct NaivePacket {
  DropReason reason = DropReason::kNone;
  bool wide = false;
  size_t end = 0;
  size_t l3 = 0, l4 = 0, inner_l3 = 0, inner_l4 = 0;
  size_t fragment_header = 0;
  std::vector<unsigned> tags;
  // Of the flow.
  Bytes src, dst;  // 4 or 16 bytes
  unsigned src_port = 0, dst_port = 0;
  unsigned protocol = 0;
  bool checksum_holds = true;
};

class NaiveParser {
 public:
  NaiveParser(const Bytes& frame, Side side) : frame_(frame), side_(side) {}

  NaivePacket parse() {
    found_.end = frame_.size();
    try {
      ethernet();
    } catch (DropReason why) {
      found_.reason = why;
    }
    return found_;
  }

 private:
  struct Upper {
    unsigned protocol;
    size_t at;
    size_t fragment_header = 0;
    bool piece = false, later_piece = false, routed = false;
  };

  unsigned u8(size_t at) const { return frame_.at(at); }
  unsigned u16(size_t at) const { return u8(at) * 256 + u8(at + 1); }
  Bytes bytes(size_t at, size_t count) const {
    Bytes copy;
    for (size_t i = 0; i < count; ++i) copy.push_back(frame_.at(at + i));
    return copy;
  }
  void need(size_t at, size_t count, DropReason otherwise) const {
    if (at + count > found_.end) throw otherwise;
  }
  static bool one_of(unsigned value, std::initializer_list<unsigned> accepted) {
    return std::ranges::find(accepted, value) != accepted.end();
  }

  void ethernet() {
    need(0, 14, DropReason::kTruncatedEthernet);
    size_t type_at = 12;
    while (one_of(u16(type_at), {0x8100, 0x88a8})) {
      if (found_.tags.size() == 2) throw DropReason::kUnsupportedEtherType;
      need(type_at + 2, 4, DropReason::kTruncatedEthernet);
      found_.tags.push_back(u16(type_at + 2));
      type_at += 4;
    }
    found_.l3 = type_at + 2;
    if (u16(type_at) == 0x0800) return ipv4();
    if (u16(type_at) == 0x86dd) return ipv6();
    throw DropReason::kUnsupportedEtherType;
  }

  // ---- IPv4 (RFC 791).

  void ipv4() {
    const size_t ip = found_.l3;
    need(ip, 20, DropReason::kTruncatedIpv4);
    const size_t header = u8(ip) % 16 * 4;
    const size_t total = u16(ip + 2);
    if (u8(ip) / 16 != 4 || header < 20 || total < header) throw DropReason::kBadIpv4Header;
    need(ip, total, DropReason::kTruncatedIpv4);
    if (naive_checksum(naive_sum(&frame_[ip], header)) != 0) throw DropReason::kBadIpv4Checksum;
    ipv4_options(bytes(ip + 20, header - 20));
    found_.src = bytes(ip + 12, 4);
    found_.dst = bytes(ip + 16, 4);
    if (found_.src[0] == 0 || found_.src[0] == 127 || found_.src[0] >= 224) {
      throw DropReason::kBadSource;
    }
    found_.end = ip + total;
    found_.l4 = ip + header;
    found_.protocol = u8(ip + 9);
    const unsigned flags = u16(ip + 6);
    const bool more = flags / 0x2000 % 2 == 1;
    const size_t offset = flags % 0x2000 * 8;
    if (more || offset != 0) fragment(header + offset, more);
    upper_layer();
  }

  static void ipv4_options(Bytes options) {
    while (!options.empty() && options[0] != 0) {
      size_t length = 1;
      if (options[0] != 1) {
        if (options.size() < 2 || options[1] < 2 || options[1] > options.size()) {
          throw DropReason::kBadIpv4Header;
        }
        if (options[0] == 131 || options[0] == 137) throw DropReason::kIpv4SourceRoute;
        length = options[1];
      }
      options.erase(options.begin(), options.begin() + static_cast<ptrdiff_t>(length));
    }
  }

  [[noreturn]] void fragment(size_t begin, bool more) const {
    const size_t count = found_.end - found_.l4;
    if (count == 0 || (more && count % 8 != 0) || begin + count > 65535) {
      throw DropReason::kBadFragment;
    }
    throw DropReason::kFragment;
  }

  // ---- IPv6 (RFC 8200).

  void ipv6() {
    found_.wide = true;
    const size_t ip = found_.l3;
    need(ip, 40, DropReason::kTruncatedIpv6);
    if (u8(ip) / 16 != 6) throw DropReason::kBadIpv6Header;
    need(ip + 40, u16(ip + 4), DropReason::kTruncatedIpv6);
    found_.end = ip + 40 + u16(ip + 4);
    found_.src = bytes(ip + 8, 16);
    found_.dst = bytes(ip + 24, 16);
    Bytes loopback(16, 0);
    loopback[15] = 1;
    if (found_.src[0] == 255 || found_.src == loopback) throw DropReason::kBadSource;
    const Upper upper = step_over(ip + 40, u8(ip + 6), false);
    found_.l4 = upper.at;
    found_.protocol = upper.protocol;
    found_.fragment_header = upper.fragment_header;
    routed_ = upper.routed;
    if (upper.piece) {
      if (no_source()) throw DropReason::kBadSource;
      const unsigned field = u16(upper.fragment_header + 2);
      fragment(upper.fragment_header - (ip + 40) + field / 8 * 8, field % 2 == 1);
    }
    if (found_.protocol != 58 && no_source()) throw DropReason::kBadSource;
    upper_layer();
  }
  bool no_source() const { return found_.src == Bytes(16, 0); }

  Upper step_over(size_t first, unsigned kind, bool quoted) const {
    Upper upper{kind, first};
    std::vector<unsigned> kinds;
    while (one_of(upper.protocol, {0, 43, 44, 51, 60})) {
      kind = upper.protocol;
      need(upper.at, 8, DropReason::kTruncatedIpv6);
      size_t count = (u8(upper.at + 1) + 1) * 8;
      if (kind == 44) count = 8;
      if (kind == 51) count = (u8(upper.at + 1) + 2) * 4;
      if (kind == 51 && (count < 12 || count % 8 != 0)) throw DropReason::kIpv6Extensions;
      need(upper.at, count, DropReason::kTruncatedIpv6);
      if (kind == 0 && !kinds.empty()) throw DropReason::kIpv6Extensions;
      if (kind == 44 && std::ranges::count(kinds, 44U) != 0) throw DropReason::kIpv6Extensions;
      kinds.push_back(kind);
      if (kinds.size() > 8 || upper.at + count - first > 256) throw DropReason::kIpv6Extensions;
      if (kind == 43 && u8(upper.at + 2) == 0) throw DropReason::kIpv6RoutingType0;
      if (kind == 43 && u8(upper.at + 3) > 0) upper.routed = true;
      if (kind == 44) {
        upper.fragment_header = upper.at;
        upper.later_piece = u16(upper.at + 2) / 8 != 0;
        upper.piece = upper.later_piece || u16(upper.at + 2) % 2 == 1;
      }
      upper.protocol = u8(upper.at);
      upper.at += count;
      if (kind == 44 && (quoted ? upper.later_piece : upper.piece)) break;
    }
    return upper;
  }

  // ---- What they carry.

  uint32_t pseudo_header(size_t count) const {
    uint32_t sum = static_cast<uint32_t>(count) + found_.protocol;
    sum += naive_sum(found_.src.data(), found_.src.size());
    return sum + naive_sum(found_.dst.data(), found_.dst.size());
  }
  bool sums_up(size_t count, bool pseudo) const {
    const uint32_t sum = naive_sum(frame_.data() + found_.l4, count);
    return naive_checksum(sum + (pseudo ? pseudo_header(count) : 0)) == 0;
  }

  void upper_layer() {
    const size_t at = found_.l4;
    const size_t count = found_.end - at;
    switch (found_.protocol) {
      case 6:
        need(at, 20, DropReason::kTruncatedL4);
        if (u8(at + 12) / 16 < 5 || u8(at + 12) / 16 * 4 > count) throw DropReason::kBadTcpHeader;
        ports(at);
        found_.checksum_holds = routed_ || sums_up(count, true);
        return;
      case 17:
        need(at, 8, DropReason::kTruncatedL4);
        if (u16(at + 4) < 8 || u16(at + 4) > count) throw DropReason::kBadUdpLength;
        ports(at);
        found_.checksum_holds = routed_ || u16(at + 6) == 0 || sums_up(u16(at + 4), true);
        return;
      case 1:
        if (found_.wide) throw DropReason::kUnsupportedProtocol;
        return icmp(count);
      case 58:
        if (!found_.wide) throw DropReason::kUnsupportedProtocol;
        return icmpv6(count);
      default:
        other(found_.protocol);
    }
  }
  void other(unsigned protocol) const {
    if (one_of(protocol, {0, 43, 44, 59, 60})) throw DropReason::kUnsupportedProtocol;
    if (protocol == (found_.wide ? 1 : 58)) throw DropReason::kUnsupportedProtocol;
  }
  void ports(size_t at) {
    found_.src_port = u16(at);
    found_.dst_port = u16(at + 2);
  }
  void identifier(unsigned id, bool from_inside) {
    (from_inside ? found_.src_port : found_.dst_port) = id;
  }

  void icmp(size_t count) {
    need(found_.l4, 8, DropReason::kTruncatedL4);
    const unsigned type = u8(found_.l4);
    found_.checksum_holds = sums_up(count, false);
    if (one_of(type, {3, 11, 12})) return error();
    if (!one_of(type, {0, 8})) throw DropReason::kUnsupportedIcmp;
    identifier(u16(found_.l4 + 4), side_ == Side::kInside);
  }
  void icmpv6(size_t count) {
    need(found_.l4, 8, DropReason::kTruncatedL4);
    const unsigned type = u8(found_.l4);
    const unsigned hops = u8(found_.l3 + 7);
    found_.checksum_holds = routed_ || sums_up(count, true);
    if (type >= 133 && type <= 137) {
      const std::array<size_t, 5> least = {8, 16, 24, 24, 40};
      const bool good = hops == 255 && u8(found_.l4 + 1) == 0 && count >= least[type - 133] &&
                        found_.checksum_holds;
      throw good ? DropReason::kNeighbourDiscovery : DropReason::kBadNeighbourDiscovery;
    }
    if (one_of(type, {130, 131, 132, 143})) {
      if (hops != 1) throw DropReason::kUnsupportedIcmp;
      throw found_.checksum_holds ? DropReason::kMulticastListener : DropReason::kBadIcmpChecksum;
    }
    if (no_source()) throw DropReason::kBadSource;
    if (one_of(type, {1, 2, 3, 4})) return error();
    if (!one_of(type, {128, 129})) throw DropReason::kUnsupportedIcmp;
    identifier(u16(found_.l4 + 4), side_ == Side::kInside);
  }

  void error() {
    if (!found_.checksum_holds) throw DropReason::kBadIcmpChecksum;
    found_.inner_l3 = found_.l4 + 8;
    const Bytes quoted_src = found_.wide ? quoted_ipv6() : quoted_ipv4();
    const size_t at = found_.inner_l4;
    need(at, 8, DropReason::kTruncatedL4);
    unsigned source = 0, destination = 0;
    if (one_of(found_.protocol, {6, 17})) {
      source = u16(at);
      destination = u16(at + 2);
    } else if (found_.protocol == (found_.wide ? 58 : 1)) {
      const bool echo = found_.wide ? one_of(u8(at), {128, 129}) : one_of(u8(at), {0, 8});
      if (!echo) throw DropReason::kUnsupportedIcmp;
      (side_ == Side::kOutside ? source : destination) = u16(at + 4);
    } else {
      other(found_.protocol);
    }
    // The flow's packets from here go where the quoted one came from.
    found_.src = found_.dst;
    found_.dst = quoted_src;
    found_.src_port = destination;
    found_.dst_port = source;
  }
  // Both leave the quoted destination in found_.dst and return the source.
  Bytes quoted_ipv4() {
    const size_t ip = found_.inner_l3;
    need(ip, 20, DropReason::kTruncatedIpv4);
    const size_t header = u8(ip) % 16 * 4;
    if (u8(ip) / 16 != 4 || header < 20) throw DropReason::kBadIpv4Header;
    need(ip, header, DropReason::kTruncatedIpv4);
    if (naive_checksum(naive_sum(&frame_[ip], header)) != 0) throw DropReason::kBadIcmpChecksum;
    if (u16(ip + 6) % 0x2000 != 0) throw DropReason::kUnsupportedFragment;
    found_.inner_l4 = ip + header;
    found_.protocol = u8(ip + 9);
    found_.dst = bytes(ip + 16, 4);
    return bytes(ip + 12, 4);
  }
  Bytes quoted_ipv6() {
    const size_t ip = found_.inner_l3;
    need(ip, 40, DropReason::kTruncatedIpv6);
    if (u8(ip) / 16 != 6) throw DropReason::kBadIpv6Header;
    const Upper upper = step_over(ip + 40, u8(ip + 6), true);
    if (upper.later_piece) throw DropReason::kUnsupportedFragment;
    found_.inner_l4 = upper.at;
    found_.protocol = upper.protocol;
    found_.dst = bytes(ip + 24, 16);
    return bytes(ip + 8, 16);
  }

  const Bytes& frame_;
  const Side side_;
  bool routed_ = false;
  NaivePacket found_;
};

inline FlowKey naive_key(const NaivePacket& packet, Side side, HashSecret secret) {
  FlowKey key;
  if (packet.wide) {
    Ipv6Address src, dst;
    std::ranges::copy(packet.src, src.begin());
    std::ranges::copy(packet.dst, dst.begin());
    key.src = fold_address(src, secret);
    key.dst = fold_address(dst, secret);
    key.family = Family::kIpv6;
  } else {
    std::memcpy(&key.src, packet.src.data(), sizeof(key.src));
    std::memcpy(&key.dst, packet.dst.data(), sizeof(key.dst));
  }
  key.src_port = Be16::from_host(static_cast<uint16_t>(packet.src_port));
  key.dst_port = Be16::from_host(static_cast<uint16_t>(packet.dst_port));
  key.protocol = static_cast<uint8_t>(packet.protocol);
  key.side = side;
  return key;
}

// "" or what parse() and the naive parser say differently about the frame, which it parses where it
// lies and in a copy of exactly its size.
inline std::string parse_difference(const Bytes& frame, Side side, HashSecret secret) {
  PacketMeta meta;
  const DropReason reason =
      parse(frame.data(), static_cast<uint16_t>(frame.size()), side, secret, meta);
  const NaivePacket naive = NaiveParser(frame, side).parse();
  if (reason != naive.reason) {
    return std::string(drop_reason_name(reason)) + " instead of " +
           std::string(drop_reason_name(naive.reason));
  }
  const bool is_flow = reason == DropReason::kNone;
  if (!is_flow && reason != DropReason::kFragment && reason != DropReason::kNeighbourDiscovery &&
      reason != DropReason::kMulticastListener) {
    return "";
  }
  if (meta.length != naive.end) return "length";
  if (meta.l3_offset != naive.l3 || meta.l4_offset != naive.l4) return "offset";
  if (meta.is_wide() != naive.wide) return "family";
  if (meta.vlan_tags() != naive.tags.size()) return "number of tags";
  if (!std::equal(naive.tags.begin(), naive.tags.end(), meta.vlan_tci)) return "tags";
  if (naive.wide) {
    if (meta.fragment_header_offset != naive.fragment_header) return "fragment header";
    if (!std::ranges::equal(meta.addresses.src, naive.src)) return "source address";
    if (!std::ranges::equal(meta.addresses.dst, naive.dst)) return "destination address";
  }
  if (meta.key.protocol != naive.protocol) return "protocol";
  if (!is_flow) return "";
  if (meta.inner_l3_offset != naive.inner_l3) return "quoted IP header";
  if (naive.inner_l3 != 0 && meta.inner_l4_offset != naive.inner_l4) return "quoted L4 header";
  if (!(meta.key == naive_key(naive, side, secret))) return "key";
  if (meta.hash != hash_key(meta.key, secret)) return "hash";
  if (l4_checksum_holds(frame.data(), meta) != naive.checksum_holds) return "checksum";
  return "";
}

}  // namespace flowkeep
