// ICMP that the switch says itself: echo replies for its own addresses (RFC 1122 3.2.2.6), and
// errors about packets that it does not forward (RFC 792, RFC 1812 4.3.2 and 5.3.1, RFC 1191).
#include <rte_mbuf.h>

#include <algorithm>
#include <cstring>

#include "dataplane/switch/switch.h"
#include "nfs/checksum.h"

namespace flowkeep {
namespace {

constexpr uint8_t kInternetworkControl = 0xc0;  // precedence of errors (RFC 1812 4.3.2.5)
constexpr uint8_t kTimeToLive = 64;
// An error quotes as much as fits into what every host takes (RFC 1812 4.3.2.3).
constexpr size_t kQuotedBytes = kSmallestMtu - sizeof(Ipv4Header) - sizeof(IcmpHeader);

void write_checksum(Wire<Be16>& checksum, const void* bytes, size_t count) {
  checksum.set(Be16{});
  checksum.set(internet_checksum(static_cast<const uint8_t*>(bytes), count));
}

}  // namespace

void Switch::answer_echo(size_t port_index, rte_mbuf* packet) {
  PacketMeta& meta = meta_of(packet);
  auto* frame = rte_pktmbuf_mtod(packet, uint8_t*);
  auto& ip = checked_header<Ipv4Header>(frame, meta.l3_offset);
  auto& icmp = checked_header<IcmpHeader>(frame, meta.l4_offset);
  icmp.type = kIcmpEchoReply;
  write_checksum(icmp.checksum, &icmp, static_cast<size_t>(meta.length - meta.l4_offset));
  const Be32 asking = ip.src.get();
  ip.src.set(ip.dst.get());
  ip.dst.set(asking);
  ip.ttl = kTimeToLive;
  write_checksum(ip.checksum, &ip, static_cast<size_t>(meta.l4_offset - meta.l3_offset));
  const PortState& state = ports_[port_index];
  if (state.chain >= 0 && state.port->config().role == Side::kOutside &&
      is_external(header_.chains[state.chain], asking)) {
    meta.chain = static_cast<uint16_t>(state.chain);
    return reenter(header_.chains[state.chain], packet);
  }
  const DropReason refused = route(port_index, packet, asking);
  if (refused != DropReason::kNone) drop(port_index, packet, refused);
}

// To the sender, from this port's own address. `original` stays the caller's.
void Switch::send_icmp_error(size_t port_index, rte_mbuf* original, IcmpError error) {
  PortState& state = ports_[port_index];
  const PacketMeta& meta = meta_of(original);
  const bool about_error = meta.inner_l3_offset != 0;  // RFC 1122 3.2.2: no error about an error
  if (about_error || state.icmp_budget == 0) return;
  const auto* cause = rte_pktmbuf_mtod(original, const uint8_t*) + meta.l3_offset;
  const Be32 sender = reinterpret_cast<const Ipv4Header*>(cause)->src.get();
  const Be32 hop = state.port->next_hop(sender);
  const Be32 own = state.port->source_for(hop);
  rte_mbuf* packet = hop.raw == 0 || own.raw == 0 ? nullptr : rte_pktmbuf_alloc(pools_.frames());
  if (packet == nullptr) return;
  --state.icmp_budget;
  const size_t quoted =
      std::min<size_t>(kQuotedBytes, static_cast<size_t>(meta.length - meta.l3_offset));
  const size_t ip_bytes = sizeof(Ipv4Header) + sizeof(IcmpHeader) + quoted;
  auto* frame = reinterpret_cast<uint8_t*>(
      rte_pktmbuf_append(packet, static_cast<uint16_t>(kEthernetBytes + ip_bytes)));
  std::memset(frame, 0, kEthernetBytes + sizeof(Ipv4Header) + sizeof(IcmpHeader));
  checked_header<EthernetHeader>(frame, 0).type.set(Be16::from_host(kEtherTypeIpv4));
  auto& ip = checked_header<Ipv4Header>(frame, kEthernetBytes);
  ip.version_and_words = 0x45;
  ip.dscp_ecn = kInternetworkControl;
  ip.total_length.set(Be16::from_host(static_cast<uint16_t>(ip_bytes)));
  ip.ttl = kTimeToLive;
  ip.protocol = kProtocolIcmp;
  ip.src.set(own);
  ip.dst.set(sender);
  write_checksum(ip.checksum, &ip, sizeof(ip));
  auto& icmp = checked_header<IcmpHeader>(frame, kEthernetBytes + sizeof(Ipv4Header));
  icmp.type = error.type;
  icmp.code = error.code;
  icmp.sequence.set(Be16::from_host(static_cast<uint16_t>(error.mtu)));  // RFC 1191 section 4
  std::memcpy(&icmp + 1, cause, quoted);
  write_checksum(icmp.checksum, &icmp, sizeof(icmp) + quoted);
  const DropReason refused = route(port_index, packet, sender);
  if (refused != DropReason::kNone) drop(port_index, packet, refused);
}

}  // namespace flowkeep
