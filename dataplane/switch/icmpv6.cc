// ICMPv6 that the switch says itself (RFC 4443): echo replies for its own addresses, and errors
// about packets that it does not forward (hop limit exceeded; packet too big, RFC 8201).
#include "dataplane/switch/icmpv6.h"

#include <algorithm>
#include <cstring>

#include "dataplane/switch/switch.h"
#include "nfs/checksum.h"

namespace flowkeep {
namespace {

constexpr uint8_t kHopLimit = 64;
// An error quotes as much as fits into what every link carries (RFC 4443 section 2.4).
constexpr size_t kQuotedBytes = kSmallestIpv6Mtu - sizeof(Ipv6Header) - sizeof(IcmpHeader);

}  // namespace

void write_icmpv6_checksum(uint8_t* frame, size_t l4_offset, size_t end) {
  const auto& ip = checked_header<Ipv6Header>(frame, kEthernetBytes);
  auto& icmp = checked_header<IcmpHeader>(frame, l4_offset);
  const size_t bytes = end - l4_offset;
  icmp.checksum.set(Be16{});
  uint64_t sum = add_to_sum(ip.addresses.src.data(), sizeof(ip.addresses), 0);
  sum += Be16::from_host(static_cast<uint16_t>(bytes)).raw;
  sum += Be16::from_host(kProtocolIcmpv6).raw;
  icmp.checksum.set(
      Be16{static_cast<uint16_t>(~fold_sum(add_to_sum(frame + l4_offset, bytes, sum)))});
}

rte_mbuf* make_icmpv6(rte_mempool* pool, const WideAddresses& addresses, uint8_t hop_limit,
                      size_t icmp_bytes) {
  rte_mbuf* packet = rte_pktmbuf_alloc(pool);
  if (packet == nullptr) return nullptr;
  const size_t bytes = kEthernetBytes + sizeof(Ipv6Header) + icmp_bytes;
  auto* frame =
      reinterpret_cast<uint8_t*>(rte_pktmbuf_append(packet, static_cast<uint16_t>(bytes)));
  std::memset(frame, 0, bytes);
  checked_header<EthernetHeader>(frame, 0).type.set(Be16::from_host(kEtherTypeIpv6));
  auto& ip = checked_header<Ipv6Header>(frame, kEthernetBytes);
  ip.version_class_flow.set(Be32::from_host(0x60000000));
  ip.payload_length.set(Be16::from_host(static_cast<uint16_t>(icmp_bytes)));
  ip.next_header = kProtocolIcmpv6;
  ip.hop_limit = hop_limit;
  ip.addresses = addresses;
  return packet;
}

void Switch::answer_ipv6_echo(size_t port_index, rte_mbuf* packet) {
  const PacketMeta& meta = meta_of(packet);
  auto* frame = rte_pktmbuf_mtod(packet, uint8_t*);
  auto& ip = checked_header<Ipv6Header>(frame, kEthernetBytes);
  checked_header<IcmpHeader>(frame, meta.l4_offset).type = kIcmpv6EchoReply;
  ip.addresses = ip.addresses.reversed();
  ip.hop_limit = kHopLimit;
  write_icmpv6_checksum(frame, meta.l4_offset, meta.length);
  const DropReason refused = route(port_index, packet, ip.addresses.dst);
  if (refused != DropReason::kNone) drop(port_index, packet, refused);
}

// To the sender, from this port's own address. `original` stays the caller's.
void Switch::send_icmpv6_error(size_t port_index, rte_mbuf* original, IcmpError error) {
  PortState& state = ports_[port_index];
  const PacketMeta& meta = meta_of(original);
  const auto* cause = rte_pktmbuf_mtod(original, const uint8_t*) + kEthernetBytes;
  const Ipv6Address sender = reinterpret_cast<const Ipv6Header*>(cause)->addresses.src;
  const bool about_error = meta.inner_l3_offset != 0;  // RFC 4443 section 2.4 (e)
  if (about_error || is_unspecified(sender) || is_multicast(sender) || state.icmp_budget == 0)
    return;
  const size_t quoted =
      std::min<size_t>(kQuotedBytes, static_cast<size_t>(meta.length - meta.l3_offset));
  const Ipv6Address own = state.port->source_for(sender);
  rte_mbuf* packet = is_unspecified(own) ? nullptr
                                         : make_icmpv6(pools_.frames(), {own, sender}, kHopLimit,
                                                       sizeof(IcmpHeader) + quoted);
  if (packet == nullptr) return;
  --state.icmp_budget;
  auto* frame = rte_pktmbuf_mtod(packet, uint8_t*);
  auto& icmp = checked_header<IcmpHeader>(frame, kIcmpv6Offset);
  icmp.type = error.type;
  icmp.code = error.code;
  icmp.sequence.set(Be16::from_host(static_cast<uint16_t>(error.mtu)));  // low half of 32 bits
  std::memcpy(&icmp + 1, cause, quoted);
  write_icmpv6_checksum(frame, kIcmpv6Offset, packet->data_len);
  const DropReason refused = route(port_index, packet, sender);
  if (refused != DropReason::kNone) drop(port_index, packet, refused);
}

}  // namespace flowkeep
