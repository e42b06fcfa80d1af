// From the workers to the ports: verdicts, routing, fragments, next hops.
#include <rte_ip.h>
#include <rte_mbuf.h>

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "dataplane/switch/fragmentation.h"
#include "dataplane/switch/switch.h"
#include "nfs/headers.h"

namespace flowkeep {
namespace {

// A whole datagram over the smallest MTU: 65,151 bytes in units of 552.
constexpr size_t kMostFragments = 128;

// RFC 1624, for a time to live that goes down by one.
void decrement_ttl(uint8_t* ip) {
  --ip[8];
  uint16_t checksum = 0;
  std::memcpy(&checksum, ip + 10, 2);
  const uint32_t sum =
      static_cast<uint32_t>(checksum) + 0x0001U;  // 0x0100 in network order, little endian
  const auto folded = static_cast<uint16_t>(sum + (sum >> 16));
  std::memcpy(ip + 10, &folded, 2);
}

bool is_ipv6(const uint8_t* ip) {
  return ip[0] >> 4 == 6;
}

size_t packet_bytes(const uint8_t* ip) {
  if (!is_ipv6(ip)) return reinterpret_cast<const Ipv4Header*>(ip)->total_length.get().host();
  return sizeof(Ipv6Header) + reinterpret_cast<const Ipv6Header*>(ip)->payload_length.get().host();
}

// A router does not cut IPv6 packets; those that came in fragments may go on in fragments.
bool may_be_cut(const uint8_t* ip) {
  if (is_ipv6(ip)) return false;
  const uint16_t flags = reinterpret_cast<const Ipv4Header*>(ip)->flags_and_offset.get().host();
  return (flags & kIpv4DontFragment) == 0;
}

}  // namespace

size_t Switch::drain(size_t slot) {
  rte_ring* outbox = arena_.outbox(slot);
  if (rte_ring_empty(outbox)) return 0;
  const int chain_index =
      static_cast<int>(header_.slots[slot].chain.load(std::memory_order_relaxed));
  for (const PortState& state : ports_) {
    if (state.chain == chain_index && !state.port->has_room(kBurst)) return 0;
  }
  rte_mbuf* burst[kBurst];
  const unsigned count =
      rte_ring_sc_dequeue_burst(outbox, reinterpret_cast<void**>(burst), kBurst, nullptr);
  for (unsigned i = 0; i < count; ++i) {
    rte_prefetch0(burst[i]);
    rte_prefetch0(rte_mbuf_to_priv(burst[i]));
    rte_prefetch0(reinterpret_cast<uint8_t*>(burst[i]) + sizeof(rte_mbuf) + sizeof(PacketMeta) +
                  RTE_PKTMBUF_HEADROOM);
  }
  bump(header_.chains[chain_index].returned, count);
  for (unsigned i = 0; i < count; ++i) deliver(burst[i]);
  if (reentered_) hand_to_workers();
  reentered_ = false;
  return count;
}

void Switch::deliver(rte_mbuf* packet) {
  const PacketMeta& meta = meta_of(packet);
  ChainBlock& chain = header_.chains[meta.chain];
  header_.counters[meta.chain].count(meta);
  if (meta.verdict == Verdict::kReply) return send_reply(chain, packet);
  if (meta.verdict == Verdict::kDrop) return drop_of_chain(chain, packet, meta.reason);
  const size_t port = meta.side == Side::kInside ? chain.outside_port : chain.inside_port;
  const uint32_t bytes = packet->pkt_len;
  auto* ip = rte_pktmbuf_mtod(packet, uint8_t*) + meta.l3_offset;
  DropReason refused = DropReason::kNone;
  if (meta.is_wide()) {
    auto& header = *reinterpret_cast<Ipv6Header*>(ip);
    --header.hop_limit;
    refused = route(port, packet, header.addresses.dst);
  } else {
    const Be32 destination = reinterpret_cast<const Ipv4Header*>(ip)->dst.get();
    if (meta.side == Side::kInside && is_external(chain, destination))
      return reenter(chain, packet);
    decrement_ttl(ip);
    refused = route(port, packet, destination);
  }
  if (refused != DropReason::kNone) return drop_of_chain(chain, packet, refused);
  bump(chain.forwarded_packets);
  bump(chain.forwarded_bytes, bytes);
  if (header_.switch_block.first_forward_unix_us.load(std::memory_order_relaxed) == 0) {
    header_.switch_block.first_forward_unix_us.store(
        static_cast<uint64_t>(arena_.now_unix_s() * 1e6));
  }
}

// The packet counts as refused for its reason; that it was answered too is seen from the port. ICMP
// errors are limited as the switch's own are (RFC 1812 section 4.3.2.8).
void Switch::send_reply(ChainBlock& chain, rte_mbuf* packet) {
  const PacketMeta& meta = meta_of(packet);
  const uint16_t bytes = meta.reply_length;
  const auto* frame = rte_pktmbuf_mtod(packet, const uint8_t*);
  const auto& ip = checked_header<Ipv4Header>(frame, meta.l3_offset);
  const auto& ipv6 = checked_header<Ipv6Header>(frame, meta.l3_offset);
  const bool is_reset = (meta.is_wide() ? ipv6.next_header : ip.protocol) == kProtocolTcp;
  uint32_t& budget = ports_[meta.in_port].icmp_budget;
  const size_t room = packet->data_len + size_t{rte_pktmbuf_tailroom(packet)};
  if (bytes < kEthernetBytes || bytes > room || (!is_reset && budget == 0))
    return drop_of_chain(chain, packet, meta.reason);
  if (!is_reset) --budget;
  packet->data_len = bytes;
  packet->pkt_len = bytes;
  bump(chain.drops[static_cast<size_t>(meta.reason)]);
  if (pools_.is_datagram(packet)) set_origin(packet, {UINT32_MAX, 0});  // it is whole
  const Be32 sender = ip.dst.get();
  if (!meta.is_wide() && meta.in_port == chain.outside_port && is_external(chain, sender))
    return reenter(chain, packet);
  const DropReason refused = meta.is_wide() ? route(meta.in_port, packet, ipv6.addresses.dst)
                                            : route(meta.in_port, packet, sender);
  if (refused != DropReason::kNone) drop(meta.in_port, packet, refused);
}

template <typename Address>
DropReason Switch::route(size_t port_index, rte_mbuf* packet, const Address& destination) {
  const SwitchPort& port = *ports_[port_index].port;
  const Address hop = port.next_hop(destination);
  if (hop == Address{}) return DropReason::kNoRoute;
  if (packet->pkt_len > largest_packet(port, packet) + kEthernetBytes) [[unlikely]]
    return send_fragments(port_index, packet, hop);
  return send_to(port_index, packet, hop);
}

// Not larger than the fragments that came, where the packet had been in fragments: what the path
// ahead carries is known to their sender alone.
uint32_t Switch::largest_packet(const SwitchPort& port, const rte_mbuf* packet) const {
  if (!pools_.is_datagram(packet)) [[likely]]
    return port.mtu();
  return std::min(port.mtu(), origin_of(packet).largest_fragment_bytes);
}

template <typename Address>
DropReason Switch::send_to(size_t port_index, rte_mbuf* packet, const Address& hop) {
  PortState& state = ports_[port_index];
  if (!state.port->has_room(1)) return DropReason::kPortTxFull;
  using Table = NeighbourTable<Address>;
  Table* table = nullptr;
  if constexpr (std::is_same_v<Address, Be32>)
    table = state.neighbours.get();
  else
    table = state.ipv6_neighbours.get();
  Mac mac;
  switch (table->resolve(hop, now_ms_, packet, mac)) {
    case Table::Answer::kResolved:
      transmit(port_index, packet, mac);
      return DropReason::kNone;
    case Table::Answer::kWaiting:
      return DropReason::kNone;
    case Table::Answer::kFull:
      break;
  }
  return DropReason::kNeighbourUnresolved;
}

// Takes the packet if it returns kNone.
template <typename Address>
DropReason Switch::send_fragments(size_t port_index, rte_mbuf* packet, const Address& hop) {
  SwitchPort& port = *ports_[port_index].port;
  const bool datagram = pools_.is_datagram(packet);
  const auto* frame = rte_pktmbuf_mtod(packet, const uint8_t*);
  if (!datagram && !may_be_cut(frame + kEthernetBytes)) return DropReason::kFrameTooBig;
  const uint8_t* ip = frame + kEthernetBytes;
  const uint32_t identification = fragment_identification(ports_[port_index], packet);
  Fragmentation cut(ip, packet_bytes(ip), largest_packet(port, packet), identification);
  // More than are sent for one packet: what came in crumbs goes on in pieces.
  if (datagram && (cut.count() == 0 || cut.count() > kMostFragments))
    cut = Fragmentation(ip, packet_bytes(ip), port.mtu(), identification);
  const size_t count = cut.count();
  if (count == 0 || count > kMostFragments) return DropReason::kFrameTooBig;
  if (!port.has_room(static_cast<uint16_t>(count))) flush(port_index);
  if (!port.has_room(static_cast<uint16_t>(count))) return DropReason::kPortTxFull;
  rte_mbuf* fragments[kMostFragments];
  const auto wanted = static_cast<unsigned>(count);
  if (rte_pktmbuf_alloc_bulk(pools_.frames(), fragments, wanted) != 0)
    return DropReason::kNoPacketBuffer;
  for (size_t i = 0; i < count; ++i) {
    const auto bytes = static_cast<uint16_t>(kEthernetBytes + cut.bytes(i));
    auto* to = reinterpret_cast<uint8_t*>(rte_pktmbuf_append(fragments[i], bytes));
    std::memcpy(to, frame, kEthernetBytes);
    cut.write(i, to + kEthernetBytes);
    const DropReason refused = send_to(port_index, fragments[i], hop);
    if (refused == DropReason::kNone) continue;
    if (i == 0) {  // and so would be the rest
      rte_pktmbuf_free_bulk(fragments, wanted);
      return refused;
    }
    drop(port_index, fragments[i], refused);
  }
  rte_pktmbuf_free(packet);
  return DropReason::kNone;
}

// Behind translated addresses senders that know nothing of each other share one space of
// identifications (RFC 6864 section 5.3.1, RFC 7857 section 9).
uint32_t Switch::fragment_identification(const PortState& state, const rte_mbuf* packet) {
  if (pools_.is_datagram(packet) &&
      is_ipv6(rte_pktmbuf_mtod(packet, const uint8_t*) + kEthernetBytes))
    return origin_of(packet).identification;
  const bool shared = state.chain >= 0 && state.port->config().role == Side::kOutside &&
                      header_.chains[state.chain].external_count > 0;
  if (shared) return ++next_identification_;
  const auto* frame = rte_pktmbuf_mtod(packet, const uint8_t*);
  return checked_header<Ipv4Header>(frame, kEthernetBytes).identification.get().host();
}

void Switch::transmit(size_t port_index, rte_mbuf* packet, const Mac& mac) {
  SwitchPort& port = *ports_[port_index].port;
  auto* frame = rte_pktmbuf_mtod(packet, uint8_t*);
  if (const VlanTags& tags = port.config().vlan; tags.count != 0) [[unlikely]] {
    frame = reinterpret_cast<uint8_t*>(
        rte_pktmbuf_prepend(packet, static_cast<uint16_t>(tags.bytes())));
    tags.write(frame + VlanTags::kAddressBytes);
  }
  std::memcpy(frame, mac.bytes.data(), 6);
  std::memcpy(frame + 6, port.mac().addr_bytes, 6);
  if (!port.queue(packet)) drop(port_index, packet, DropReason::kPortTxFull);
}

void Switch::flush(size_t port_index) {
  uint16_t dropped = 0;
  SwitchPort& port = *ports_[port_index].port;
  port.flush(now_tsc_, header_.tsc_hz, dropped);
  if (dropped > 0) bump(port.block().drops[static_cast<size_t>(DropReason::kPortTxFull)], dropped);
}

template DropReason Switch::route(size_t, rte_mbuf*, const Be32&);
template DropReason Switch::route(size_t, rte_mbuf*, const Ipv6Address&);

}  // namespace flowkeep
