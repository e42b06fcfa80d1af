#include "nfs/nat44/rewrite.h"

#include <cstddef>

#include "nfs/checksum.h"
#include "nfs/headers.h"

namespace flowkeep {
namespace {

template <typename T>
void replace(Wire<T>& field, T value, ChecksumDelta& delta) {
  delta.replace(field.get(), value);
  field.set(value);
}

// An address of an IPv4 header, with the header's checksum. Returns what it did to a checksum that
// covers the address but not the header (a pseudo header).
ChecksumDelta replace_address(Ipv4Header& ip, Wire<Be32>& field, Be32 address) {
  ChecksumDelta delta;
  replace(field, address, delta);
  ip.checksum.set(delta.applied_to(ip.checksum.get()));
  return delta;
}

// The difference cannot tell a message of zeros, whose checksum is all ones, from one whose words
// add up to all ones (RFC 1624 section 3). `bytes`: of the message, as far as it is there.
void set_icmp_checksum(uint8_t* message, size_t bytes, Be16 checksum) {
  auto& icmp = *reinterpret_cast<IcmpHeader*>(message);
  icmp.checksum.set(Be16{});
  const bool zeros = checksum.raw == 0 && fold_sum(add_to_sum(message, bytes, 0)) == 0;
  icmp.checksum.set(zeros ? Be16{0xffff} : checksum);
}

// Port or identifier, and the L4 checksum. `pseudo`: the change of the pseudo header, which an ICMP
// checksum does not cover (RFC 792).
void replace_port(uint8_t* frame, const PacketMeta& meta, bool source, Be16 port,
                  ChecksumDelta pseudo) {
  switch (meta.key.protocol) {
    case kProtocolTcp: {
      auto& tcp = checked_header<TcpHeader>(frame, meta.l4_offset);
      replace(source ? tcp.src_port : tcp.dst_port, port, pseudo);
      tcp.checksum.set(pseudo.applied_to(tcp.checksum.get()));
      return;
    }
    case kProtocolUdp: {
      auto& udp = checked_header<UdpHeader>(frame, meta.l4_offset);
      replace(source ? udp.src_port : udp.dst_port, port, pseudo);
      udp.checksum.set(pseudo.applied_to_udp(udp.checksum.get()));
      return;
    }
    case kProtocolIcmp: {
      auto& icmp = checked_header<IcmpHeader>(frame, meta.l4_offset);
      ChecksumDelta delta;
      replace(icmp.identifier, port, delta);
      set_icmp_checksum(frame + meta.l4_offset, meta.length - meta.l4_offset,
                        delta.applied_to(icmp.checksum.get()));
      return;
    }
    default:
      return;
  }
}

// A checksum within the quoted packet, which the error's own checksum covers.
void set_covered(Wire<Be16>& field, Be16 value, ChecksumDelta& cover) {
  replace(field, value, cover);
}

// Port or identifier of the quoted L4 header, and its checksum if it was quoted: of TCP it lies
// beyond the 8 bytes that must be there (RFC 792).
void replace_quoted_port(uint8_t* frame, const PacketMeta& meta, bool source, Be16 port,
                         ChecksumDelta pseudo, ChecksumDelta& cover) {
  const size_t l4 = meta.inner_l4_offset;
  ChecksumDelta delta;
  if (meta.key.protocol == kProtocolIcmp) {
    auto& icmp = checked_header<IcmpHeader>(frame, l4);
    replace(icmp.identifier, port, delta);
    cover.add(delta);
    set_covered(icmp.checksum, delta.applied_to(icmp.checksum.get()), cover);
    return;
  }
  auto& ports = checked_header<UdpHeader>(frame, l4);
  replace(source ? ports.src_port : ports.dst_port, port, delta);
  cover.add(delta);
  delta.add(pseudo);
  if (meta.key.protocol == kProtocolUdp) {
    set_covered(ports.checksum, delta.applied_to_udp(ports.checksum.get()), cover);
  } else if (meta.length - l4 >= offsetof(TcpHeader, checksum) + sizeof(Be16)) {
    auto& tcp = checked_header<TcpHeader>(frame, l4);
    set_covered(tcp.checksum, delta.applied_to(tcp.checksum.get()), cover);
  }
}

// The quoted packet's endpoint with all checksums inside and around it.
void rewrite_quoted(uint8_t* frame, const PacketMeta& meta, bool source, Endpoint endpoint) {
  auto& ip = checked_header<Ipv4Header>(frame, meta.inner_l3_offset);
  auto& icmp = checked_header<IcmpHeader>(frame, meta.l4_offset);
  const Be16 ip_checksum = ip.checksum.get();
  const ChecksumDelta pseudo = replace_address(ip, source ? ip.src : ip.dst, endpoint.address);
  ChecksumDelta cover = pseudo;
  cover.replace(ip_checksum, ip.checksum.get());
  replace_quoted_port(frame, meta, source, endpoint.port, pseudo, cover);
  icmp.checksum.set(cover.applied_to(icmp.checksum.get()));
}

}  // namespace

void rewrite_source(uint8_t* frame, const PacketMeta& meta, Endpoint source) {
  auto& ip = checked_header<Ipv4Header>(frame, meta.l3_offset);
  const ChecksumDelta pseudo = replace_address(ip, ip.src, source.address);
  replace_port(frame, meta, true, source.port, pseudo);
}

void rewrite_destination(uint8_t* frame, const PacketMeta& meta, Endpoint destination) {
  auto& ip = checked_header<Ipv4Header>(frame, meta.l3_offset);
  const ChecksumDelta pseudo = replace_address(ip, ip.dst, destination.address);
  replace_port(frame, meta, false, destination.port, pseudo);
}

void rewrite_error_from_inside(uint8_t* frame, const PacketMeta& meta, Endpoint external) {
  auto& ip = checked_header<Ipv4Header>(frame, meta.l3_offset);
  replace_address(ip, ip.src, external.address);
  rewrite_quoted(frame, meta, false, external);
}

void rewrite_error_from_outside(uint8_t* frame, const PacketMeta& meta, Endpoint inside) {
  auto& ip = checked_header<Ipv4Header>(frame, meta.l3_offset);
  replace_address(ip, ip.dst, inside.address);
  rewrite_quoted(frame, meta, true, inside);
}

}  // namespace flowkeep
