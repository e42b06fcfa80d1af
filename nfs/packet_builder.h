// Builds packets for tests, with every checksum right, and checks those of packets that come back.
//
//   PacketBuilder::tcp("10.0.0.2", 40000, "198.51.100.7", 443, kTcpSyn).payload(100).build()
//   PacketBuilder::udp("2001:db8::2", 40000, "2001:db8:1::7", 53).hop_by_hop().vlan(7).build()
//
// Checksums are computed word by word here, independently of nfs/checksum.h.
#pragma once

#include <arpa/inet.h>

#include <algorithm>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "nfs/headers.h"
#include "nfs/ipv4_prefix.h"
#include "nfs/packet.h"

namespace flowkeep {

using Bytes = std::vector<uint8_t>;

inline uint32_t naive_sum(const uint8_t* bytes, size_t length) {
  uint32_t sum = 0;
  for (size_t i = 0; i < length; ++i) sum += i % 2 == 0 ? bytes[i] * 256U : bytes[i];
  return sum;
}
inline uint16_t naive_checksum(uint32_t sum) {
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<uint16_t>(~sum);
}
inline uint32_t naive_pseudo_header_sum(const uint8_t* ip, uint8_t protocol, size_t l4_bytes) {
  const uint32_t addresses = ip[0] >> 4 == 6 ? naive_sum(ip + 8, 32) : naive_sum(ip + 12, 8);
  return addresses + protocol + static_cast<uint32_t>(l4_bytes);
}

inline Ipv6Address ipv6_address(std::string_view text) {
  Ipv6Address address;
  [[maybe_unused]] const int read = inet_pton(AF_INET6, std::string(text).c_str(), address.data());
  assert(read == 1);
  return address;
}

class PacketBuilder {
 public:
  static PacketBuilder tcp(std::string_view src, uint16_t src_port, std::string_view dst,
                           uint16_t dst_port, uint8_t flags) {
    PacketBuilder builder(kProtocolTcp, src, dst);
    builder.l4_.resize(sizeof(TcpHeader));
    builder.set_l4(0, src_port);
    builder.set_l4(2, dst_port);
    builder.l4_[7] = 1;  // sequence number
    builder.l4_[12] = 5 << 4;
    builder.l4_[13] = flags;
    builder.set_l4(14, 65000);  // window
    return builder;
  }
  static PacketBuilder udp(std::string_view src, uint16_t src_port, std::string_view dst,
                           uint16_t dst_port) {
    PacketBuilder builder(kProtocolUdp, src, dst);
    builder.l4_.resize(sizeof(UdpHeader));
    builder.set_l4(0, src_port);
    builder.set_l4(2, dst_port);
    return builder;
  }
  static PacketBuilder echo_request(std::string_view src, std::string_view dst,
                                    uint16_t identifier) {
    return icmp(src, dst, is_wide(src) ? kIcmpv6EchoRequest : kIcmpEchoRequest, identifier);
  }
  static PacketBuilder echo_reply(std::string_view src, std::string_view dst, uint16_t identifier) {
    return icmp(src, dst, is_wide(src) ? kIcmpv6EchoReply : kIcmpEchoReply, identifier);
  }
  // Quotes the IP header of an untagged frame and `l4_bytes` of what follows it (of IPv6: with its
  // extension headers).
  static PacketBuilder icmp_error(std::string_view src, std::string_view dst, uint8_t type,
                                  uint8_t code, const Bytes& about, size_t l4_bytes = 8) {
    PacketBuilder builder = icmp(src, dst, type, 0);
    builder.l4_[1] = code;
    builder.set_l4(6, 1400);  // the next hop's MTU, where the code has one
    const size_t header = about[14] >> 4 == 6 ? sizeof(Ipv6Header) : (about[14] & 0x0f) * 4U;
    const size_t quoted = sizeof(EthernetHeader) + header + l4_bytes;
    assert(quoted <= about.size());
    for (size_t at = sizeof(EthernetHeader); at < quoted; ++at) builder.l4_.push_back(about[at]);
    return builder;
  }

  // An ICMPv6 message: type, code, and what follows the checksum.
  static PacketBuilder icmpv6(std::string_view src, std::string_view dst, uint8_t type,
                              uint8_t code, const Bytes& body) {
    PacketBuilder builder = icmp(src, dst, type, 0);
    builder.l4_.resize(4);
    builder.l4_[1] = code;
    builder.l4_.insert(builder.l4_.end(), body.begin(), body.end());
    return builder;
  }

  PacketBuilder& payload(size_t bytes, uint8_t seed = 7) {
    for (size_t i = 0; i < bytes; ++i) l4_.push_back(static_cast<uint8_t>(seed + 31 * i));
    return *this;
  }
  PacketBuilder& ip_options(size_t words) {
    return raw_ip_options(Bytes(words * 4, kIpv4NoOperation));
  }
  // A multiple of 4 bytes.
  PacketBuilder& raw_ip_options(Bytes options) {
    options_ = std::move(options);
    return *this;
  }
  PacketBuilder& tcp_options(size_t words) {
    l4_.insert(l4_.begin() + sizeof(TcpHeader), words * 4, 1);  // no-operation
    l4_[12] = static_cast<uint8_t>((5 + words) << 4);
    return *this;
  }
  PacketBuilder& without_udp_checksum() {
    udp_checksum_ = false;
    return *this;
  }
  PacketBuilder& fragment(uint16_t flags_and_offset) {
    fragment_ = flags_and_offset;
    return *this;
  }
  PacketBuilder& protocol(uint8_t protocol) {
    protocol_ = protocol;
    return *this;
  }
  PacketBuilder& ether_type(uint16_t type) {
    ether_type_ = type;
    return *this;
  }
  // Tags, the outermost first.
  PacketBuilder& vlan(uint16_t tci, uint16_t type = kEtherTypeVlan) {
    tags_.push_back({type, tci});
    return *this;
  }
  PacketBuilder& hop_limit(uint8_t hops) {  // or TTL
    hop_limit_ = hops;
    return *this;
  }
  // IPv6 extension headers, in their order. `header`: whole; its first byte is filled in.
  PacketBuilder& extension(uint8_t kind, Bytes header) {
    extensions_.push_back({kind, std::move(header)});
    return *this;
  }
  PacketBuilder& hop_by_hop(size_t bytes = 8) { return options(kHopByHopOptions, bytes); }
  PacketBuilder& destination_options(size_t bytes = 8) {
    return options(kDestinationOptions, bytes);
  }
  PacketBuilder& routing(uint8_t type, uint8_t segments_left) {
    return extension(kRoutingHeader, {0, 0, type, segments_left, 0, 0, 0, 0});
  }
  PacketBuilder& authentication(size_t bytes = 16) {
    Bytes header(bytes, 3);
    header[1] = static_cast<uint8_t>(bytes / 4 - 2);
    return extension(kAuthenticationHeader, header);
  }
  PacketBuilder& ipv6_fragment(uint16_t offset_and_more, uint8_t identification = 1) {
    return extension(kFragmentHeader,
                     {0, 0, static_cast<uint8_t>(offset_and_more >> 8),
                      static_cast<uint8_t>(offset_and_more), 0, 0, 0, identification});
  }
  PacketBuilder& padding(size_t bytes) {
    padding_ = bytes;
    return *this;
  }

  Bytes build() const {
    Bytes frame = build_ethernet();
    const size_t ip = frame.size();
    is_wide_ ? add_ipv6(frame) : add_ipv4(frame);
    const size_t l4 = frame.size();
    frame.insert(frame.end(), l4_.begin(), l4_.end());
    set_l4_checksum(frame, ip, l4);
    frame.resize(frame.size() + padding_, 0xee);
    return Bytes(frame.begin(),
                 frame.end());  // exactly as large as the frame: reads beyond it show
  }

 private:
  struct Tag {
    uint16_t type;
    uint16_t tci;
  };
  struct Extension {
    uint8_t kind;
    Bytes header;
  };

  PacketBuilder(uint8_t protocol, std::string_view src, std::string_view dst)
      : protocol_(protocol), is_wide_(is_wide(src)) {
    if (is_wide_) {
      ether_type_ = kEtherTypeIpv6;
      addresses_ = {ipv6_address(src), ipv6_address(dst)};
    } else {
      src_ = *parse_ipv4_address(src);
      dst_ = *parse_ipv4_address(dst);
    }
  }

  static bool is_wide(std::string_view address) { return address.find(':') != address.npos; }
  PacketBuilder& options(uint8_t kind, size_t bytes) {
    Bytes header(bytes, 0);  // Pad1
    header[1] = static_cast<uint8_t>(bytes / 8 - 1);
    return extension(kind, header);
  }

  Bytes build_ethernet() const {
    Bytes frame(sizeof(EthernetHeader), 0);
    frame[0] = 2, frame[6] = 2, frame[11] = 1;
    for (const Tag& tag : tags_) {
      set(frame, frame.size() - 2, tag.type);
      frame.resize(frame.size() + sizeof(VlanTag));
      set(frame, frame.size() - 4, tag.tci);
    }
    set(frame, frame.size() - 2, ether_type_);
    return frame;
  }
  void add_ipv4(Bytes& frame) const {
    const size_t ip = frame.size();
    const size_t header = sizeof(Ipv4Header) + options_.size();
    frame.resize(ip + header);
    frame[ip] = static_cast<uint8_t>(0x40 | header / 4);
    set(frame, ip + 2, static_cast<uint16_t>(header + l4_.size()));
    set(frame, ip + 4, 0x1234);
    set(frame, ip + 6, fragment_);
    frame[ip + 8] = hop_limit_;
    frame[ip + 9] = protocol_;
    std::memcpy(&frame[ip + 12], &src_, 4);
    std::memcpy(&frame[ip + 16], &dst_, 4);
    std::copy(options_.begin(), options_.end(),
              frame.begin() + static_cast<ptrdiff_t>(ip + sizeof(Ipv4Header)));
    set(frame, ip + 10, naive_checksum(naive_sum(&frame[ip], header)));
  }
  void add_ipv6(Bytes& frame) const {
    const size_t ip = frame.size();
    frame.resize(ip + sizeof(Ipv6Header));
    frame[ip] = 0x60;
    frame[ip + 7] = hop_limit_;
    std::memcpy(&frame[ip + 8], &addresses_, sizeof(addresses_));
    size_t next = ip + 6;
    for (const auto& [kind, header] : extensions_) {
      frame[next] = kind;
      next = frame.size();
      frame.insert(frame.end(), header.begin(), header.end());
    }
    frame[next] = protocol_;
    set(frame, ip + 4, static_cast<uint16_t>(frame.size() - ip - sizeof(Ipv6Header) + l4_.size()));
  }

  static PacketBuilder icmp(std::string_view src, std::string_view dst, uint8_t type,
                            uint16_t identifier) {
    PacketBuilder builder(is_wide(src) ? kProtocolIcmpv6 : kProtocolIcmp, src, dst);
    builder.l4_.resize(sizeof(IcmpHeader));
    builder.l4_[0] = type;
    builder.set_l4(4, identifier);
    return builder;
  }
  static void set(Bytes& bytes, size_t at, uint16_t value) {
    bytes[at] = static_cast<uint8_t>(value >> 8);
    bytes[at + 1] = static_cast<uint8_t>(value);
  }
  void set_l4(size_t at, uint16_t value) { set(l4_, at, value); }
  static size_t least_bytes(uint8_t protocol) {
    if (protocol == kProtocolTcp) return sizeof(TcpHeader);
    return protocol == kProtocolUdp ? sizeof(UdpHeader) : 4;
  }
  void set_l4_checksum(Bytes& frame, size_t ip, size_t l4) const {
    const size_t length = l4_.size();
    if (length < least_bytes(protocol_)) return;  // protocol() has made it another one
    const uint32_t pseudo = naive_pseudo_header_sum(&frame[ip], protocol_, length);
    switch (protocol_) {
      case kProtocolTcp:
        set(frame, l4 + 16, naive_checksum(naive_sum(&frame[l4], length) + pseudo));
        return;
      case kProtocolUdp: {
        set(frame, l4 + 4, static_cast<uint16_t>(length));
        if (!udp_checksum_) return;
        const uint16_t checksum = naive_checksum(naive_sum(&frame[l4], length) + pseudo);
        set(frame, l4 + 6, checksum == 0 ? 0xffff : checksum);
        return;
      }
      case kProtocolIcmp:
        set(frame, l4 + 2, naive_checksum(naive_sum(&frame[l4], length)));
        return;
      case kProtocolIcmpv6:
        set(frame, l4 + 2, naive_checksum(naive_sum(&frame[l4], length) + pseudo));
        return;
      default:
        return;
    }
  }

  uint8_t protocol_;
  bool is_wide_;
  Be32 src_;
  Be32 dst_;
  WideAddresses addresses_;
  std::vector<Tag> tags_;
  std::vector<Extension> extensions_;
  uint8_t hop_limit_ = 64;
  Bytes l4_;
  Bytes options_;
  size_t padding_ = 0;
  uint16_t fragment_ = 0;
  uint16_t ether_type_ = kEtherTypeIpv4;
  bool udp_checksum_ = true;
};

// What is wrong with the checksums of the IPv4 packet at `ip` of which `length` bytes are there;
// empty: nothing. A packet cut short (quoted by an ICMP error) has only its header checked. Of
// IPv6: TCP, UDP and ICMPv6 without extension headers.
inline std::string ipv6_checksum_faults(const uint8_t* ip, size_t length) {
  const size_t l4_bytes = ip[4] * 256U + ip[5];
  const uint8_t protocol = ip[6];
  if (sizeof(Ipv6Header) + l4_bytes > length) return "";
  if (protocol != kProtocolTcp && protocol != kProtocolUdp && protocol != kProtocolIcmpv6)
    return "";
  const uint8_t* l4 = ip + sizeof(Ipv6Header);
  const uint32_t sum = naive_sum(l4, l4_bytes) + naive_pseudo_header_sum(ip, protocol, l4_bytes);
  return naive_checksum(sum) == 0 ? "" : "IPv6's upper layer";
}
inline std::string checksum_faults(const uint8_t* ip, size_t length) {
  if (ip[0] >> 4 == 6) return ipv6_checksum_faults(ip, length);
  const size_t header = (ip[0] & 0x0f) * 4U;
  const size_t total = ip[2] * 256U + ip[3];
  if (naive_checksum(naive_sum(ip, header)) != 0) return "IPv4 header";
  if (total > length) return "";
  const uint8_t* l4 = ip + header;
  const size_t l4_bytes = total - header;
  const uint32_t sum = naive_sum(l4, l4_bytes);
  const uint32_t pseudo = naive_pseudo_header_sum(ip, ip[9], l4_bytes);
  switch (ip[9]) {
    case kProtocolTcp:
      return naive_checksum(sum + pseudo) == 0 ? "" : "TCP";
    case kProtocolUdp:
      return (l4[6] | l4[7]) == 0 || naive_checksum(sum + pseudo) == 0 ? "" : "UDP";
    case kProtocolIcmp:
      break;
    default:
      return "";
  }
  if (naive_checksum(sum) != 0) return "ICMP";
  if (l4[0] == kIcmpEchoRequest || l4[0] == kIcmpEchoReply) return "";
  const std::string quoted =
      checksum_faults(l4 + sizeof(IcmpHeader), l4_bytes - sizeof(IcmpHeader));
  return quoted.empty() ? "" : "quoted " + quoted;
}
inline std::string checksum_faults(const Bytes& frame) {
  size_t ip = sizeof(EthernetHeader);
  while (frame[ip - 2] == 0x81 || frame[ip - 2] == 0x88) ip += sizeof(VlanTag);
  return checksum_faults(frame.data() + ip, frame.size() - ip);
}

}  // namespace flowkeep
