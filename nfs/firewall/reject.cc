#include "nfs/firewall/reject.h"

#include <algorithm>
#include <cstring>

#include "nfs/checksum.h"
#include "nfs/headers.h"

namespace flowkeep {
namespace {

constexpr uint8_t kHopLimit = 64;
constexpr uint8_t kAdministrativelyProhibited = 13;  // of ICMP destination unreachable
constexpr uint8_t kIcmpv6Unreachable = 1;
constexpr uint8_t kAdministrativelyProhibitedV6 = 1;

bool is_ipv6(const uint8_t* frame, const PacketMeta& meta) {
  return frame[meta.l3_offset] >> 4 == 6;
}

void swap_addresses(uint8_t* ip, bool ipv6) {
  if (ipv6) {
    auto& header = checked_header<Ipv6Header>(ip, 0);
    header.addresses = header.addresses.reversed();
    return;
  }
  auto& header = checked_header<Ipv4Header>(ip, 0);
  const Be32 src = header.src.get();
  header.src.set(header.dst.get());
  header.dst.set(src);
}

// Over what follows the new header, with the pseudo-header.
Be16 upper_checksum(const uint8_t* ip, bool ipv6, uint8_t protocol, size_t bytes) {
  const auto length = static_cast<uint16_t>(bytes);
  if (ipv6) {
    const auto& header = checked_header<Ipv6Header>(ip, 0);
    return l4_checksum(header.addresses, protocol, ip + sizeof(header), length);
  }
  const auto& header = checked_header<Ipv4Header>(ip, 0);
  return l4_checksum(header.src.get(), header.dst.get(), protocol, ip + sizeof(header), length);
}

void write_ipv4_header(uint8_t* ip, uint8_t protocol, size_t payload_bytes) {
  auto& header = checked_header<Ipv4Header>(ip, 0);
  header.version_and_words = 0x45;
  header.dscp_ecn = 0;
  header.total_length.set(
      Be16::from_host(static_cast<uint16_t>(sizeof(Ipv4Header) + payload_bytes)));
  header.identification.set(Be16{});
  header.flags_and_offset.set(Be16::from_host(0x4000));  // don't fragment
  header.ttl = kHopLimit;
  header.protocol = protocol;
  header.checksum.set(Be16{});
  header.checksum.set(internet_checksum(ip, sizeof(Ipv4Header)));
}

void write_ipv6_header(uint8_t* ip, uint8_t protocol, size_t payload_bytes) {
  auto& header = checked_header<Ipv6Header>(ip, 0);
  header.version_class_flow.set(Be32::from_host(0x60000000));
  header.payload_length.set(Be16::from_host(static_cast<uint16_t>(payload_bytes)));
  header.next_header = protocol;
  header.hop_limit = kHopLimit;
}

// The new header without options or extensions, addresses as they are. Returns its length.
size_t write_ip_header(uint8_t* ip, bool ipv6, uint8_t protocol, size_t payload_bytes) {
  if (ipv6) {
    write_ipv6_header(ip, protocol, payload_bytes);
    return sizeof(Ipv6Header);
  }
  write_ipv4_header(ip, protocol, payload_bytes);
  return sizeof(Ipv4Header);
}

// "If the incoming segment has an ACK field, the reset takes its sequence number from the ACK field
// of the segment; otherwise, the reset has sequence number zero and the ACK field is set to the sum
// of the sequence number and segment length" (RFC 9293 section 3.5.2).
TcpHeader reset_of(const uint8_t* frame, const PacketMeta& meta) {
  const auto& segment = checked_header<TcpHeader>(frame, meta.l4_offset);
  TcpHeader reset{};
  reset.src_port = segment.dst_port;
  reset.dst_port = segment.src_port;
  reset.data_offset = static_cast<uint8_t>(sizeof(TcpHeader) / 4 << 4);
  if ((segment.flags & kTcpAck) != 0) {
    reset.sequence = segment.acknowledgement;
    reset.flags = kTcpRst;
    return reset;
  }
  const uint32_t payload =
      meta.length - std::min<uint32_t>(meta.length, meta.l4_offset + segment.header_bytes());
  const uint32_t controls =
      ((segment.flags & kTcpSyn) != 0 ? 1U : 0U) + ((segment.flags & kTcpFin) != 0 ? 1U : 0U);
  reset.acknowledgement.set(Be32::from_host(segment.sequence.get().host() + payload + controls));
  reset.flags = kTcpRst | kTcpAck;
  return reset;
}

size_t turn_into_reset(uint8_t* frame, const PacketMeta& meta) {
  TcpHeader reset = reset_of(frame, meta);
  uint8_t* ip = frame + meta.l3_offset;
  const bool ipv6 = is_ipv6(frame, meta);
  swap_addresses(ip, ipv6);
  const size_t header = write_ip_header(ip, ipv6, kProtocolTcp, sizeof(reset));
  std::memcpy(ip + header, &reset, sizeof(reset));
  checked_header<TcpHeader>(ip, header)
      .checksum.set(upper_checksum(ip, ipv6, kProtocolTcp, sizeof(reset)));
  return meta.l3_offset + header + sizeof(reset);
}

// Quotes as much of the packet as may be changed here. RFC 792 asks for its header and 8 bytes.
size_t turn_into_unreachable(uint8_t* frame, const PacketMeta& meta) {
  uint8_t* ip = frame + meta.l3_offset;
  const bool ipv6 = is_ipv6(frame, meta);
  const size_t header = ipv6 ? sizeof(Ipv6Header) : sizeof(Ipv4Header);
  const size_t quote_at = meta.l3_offset + header + sizeof(IcmpHeader);
  const size_t quoted =
      std::min<size_t>(meta.length - meta.l3_offset, (kEditableBytes - quote_at) / 4 * 4);
  std::memmove(frame + quote_at, ip, quoted);
  swap_addresses(ip, ipv6);
  const size_t icmp_bytes = sizeof(IcmpHeader) + quoted;
  const uint8_t protocol = ipv6 ? kProtocolIcmpv6 : kProtocolIcmp;
  write_ip_header(ip, ipv6, protocol, icmp_bytes);
  IcmpHeader& icmp = checked_header<IcmpHeader>(ip, header);
  icmp = {};
  icmp.type = ipv6 ? kIcmpv6Unreachable : kIcmpUnreachable;
  icmp.code = ipv6 ? kAdministrativelyProhibitedV6 : kAdministrativelyProhibited;
  icmp.checksum.set(ipv6 ? upper_checksum(ip, true, protocol, icmp_bytes)
                         : internet_checksum(ip + header, icmp_bytes));
  return quote_at + quoted;
}

bool is_group(Be32 address) {
  return address.host() >> 24 >= 0xe0;  // multicast, reserved, broadcast
}

bool is_about_group(const uint8_t* ip, bool ipv6) {
  if (ipv6) {
    const WideAddresses& addresses = checked_header<Ipv6Header>(ip, 0).addresses;
    return addresses.src[0] == 0xff || addresses.dst[0] == 0xff;
  }
  const auto& header = checked_header<Ipv4Header>(ip, 0);
  return is_group(header.src.get()) || is_group(header.dst.get());
}

}  // namespace

bool may_be_answered(const uint8_t* frame, const PacketMeta& meta) {
  if (is_about_group(frame + meta.l3_offset, is_ipv6(frame, meta))) return false;
  return meta.inner_l3_offset == 0 && (meta.tcp_flags & kTcpRst) == 0;
}

size_t turn_into_rejection(uint8_t* frame, const PacketMeta& meta) {
  return meta.key.protocol == kProtocolTcp ? turn_into_reset(frame, meta)
                                           : turn_into_unreachable(frame, meta);
}

}  // namespace flowkeep
