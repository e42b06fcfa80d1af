// From the ports to the workers: link layer, parsing, reassembly, what the switch answers itself,
// and steering.
#include <rte_mbuf.h>

#include <cstring>

#include "dataplane/switch/switch.h"
#include "nfs/headers.h"
#include "nfs/parse.h"
#include "nfs/steering.h"

namespace flowkeep {
namespace {

std::optional<Fragment> read_fragment(const uint8_t* frame, size_t length, uint8_t port) {
  if (const auto ipv4 = read_ipv4_fragment(frame, length, port)) return ipv4;
  return read_ipv6_fragment(frame, length, port);
}

bool is_echo_request(rte_mbuf* packet) {
  const PacketMeta& meta = meta_of(packet);
  return meta.key.protocol == kProtocolIcmp && meta.inner_l3_offset == 0 &&
         rte_pktmbuf_mtod(packet, const uint8_t*)[meta.l4_offset] == kIcmpEchoRequest;
}

bool is_ipv6_echo_request(rte_mbuf* packet) {
  const PacketMeta& meta = meta_of(packet);
  return meta.protocol() == kProtocolIcmpv6 && !meta.is_routed &&
         rte_pktmbuf_mtod(packet, const uint8_t*)[meta.l4_offset] == kIcmpv6EchoRequest;
}

// "This host", loopback, and multicast, reserved and broadcast addresses are not routed (RFC 1122
// section 3.2.1.3, RFC 1812 sections 4.2.3.1 and 5.3.7).
bool is_routed(Be32 destination) {
  const uint32_t first_octet = destination.host() >> 24;
  return first_octet != 0 && first_octet != 127 && first_octet < 224;
}

// RFC 4291 sections 2.5.2, 2.5.3, 2.5.6 and 2.7.
bool is_routed(const Ipv6Address& destination) {
  return !is_unspecified(destination) && !is_loopback(destination) && !is_link_local(destination) &&
         !is_multicast(destination);
}

// RFC 2464 section 7.
bool is_ipv6_group(const uint8_t* mac) {
  return mac[0] == 0x33 && mac[1] == 0x33;
}

// Takes the port's tags off. False: the frame has others.
bool untag(rte_mbuf* packet, const VlanTags& tags) {
  auto* frame = rte_pktmbuf_mtod(packet, uint8_t*);
  const uint16_t type = checked_header<EthernetHeader>(frame, 0).type.get().host();
  if (tags.count == 0 && !VlanTags::is_tag(type)) [[likely]]
    return true;
  const int bytes = tags.matched_bytes(frame, packet->data_len);
  if (bytes < 0) return false;
  std::memmove(frame + bytes, frame, VlanTags::kAddressBytes);
  rte_pktmbuf_adj(packet, static_cast<uint16_t>(bytes));
  return true;
}

}  // namespace

// A port is read only while every slot that it feeds can take a whole burst, and the hold queue
// too.
bool Switch::may_receive(const PortState& state) const {
  if (state.chain < 0) return true;
  const ChainBlock& chain = header_.chains[state.chain];
  for (const uint8_t slot : active_slots_) {
    if (header_.slots[slot].chain.load(std::memory_order_relaxed) !=
        static_cast<uint32_t>(state.chain))
      continue;
    if (rte_ring_free_count(arena_.inbox(slot)) < kBurst) return false;
  }
  return !(move_.running && &chain == &header_.chains[move_.chain] &&
           move_.held.size() + kBurst > kHeldPackets);
}

size_t Switch::receive(size_t port) {
  rte_mbuf* burst[kBurst];
  const uint16_t count = ports_[port].port->receive(burst, kBurst);
  if (count == 0) return 0;
  uint64_t bytes = 0;
  for (uint16_t i = 0; i < count; ++i) {
    rte_prefetch0(rte_pktmbuf_mtod(burst[i], void*));
    rte_prefetch0(rte_mbuf_to_priv(burst[i]));
    bytes += burst[i]->pkt_len;
  }
  PortBlock& block = ports_[port].port->block();
  bump(block.rx_packets, count);
  bump(block.rx_bytes, bytes);
  for (uint16_t i = 0; i < count; ++i) ingest(port, burst[i]);
  hand_to_workers();
  return count;
}

void Switch::ingest(size_t port_index, rte_mbuf* packet) {
  SwitchPort& port = *ports_[port_index].port;
  if (packet->nb_segs > 1) return drop(port_index, packet, DropReason::kFrameTooBig);
  if (packet->data_len < kEthernetBytes)
    return drop(port_index, packet, DropReason::kTruncatedEthernet);
  if (!untag(packet, port.config().vlan)) return drop(port_index, packet, DropReason::kWrongVlan);
  const auto& ethernet = *rte_pktmbuf_mtod(packet, const EthernetHeader*);
  if (ethernet.type.get().host() == kEtherTypeArp) return handle_arp(port_index, packet);
  const bool to_us =
      std::memcmp(ethernet.destination, port.mac().addr_bytes, 6) == 0 || port.config().promiscuous;
  if (!to_us && !is_ipv6_group(ethernet.destination))
    return drop(port_index, packet, DropReason::kNotForUs);

  DropReason refused = look_at(port_index, packet);
  if (refused == DropReason::kNeighbourDiscovery) [[unlikely]]
    return handle_neighbour_discovery(port_index, packet);
  if (refused == DropReason::kMulticastListener) return drop(port_index, packet, refused);
  if (!to_us) return drop(port_index, packet, DropReason::kNotForUs);
  if (refused == DropReason::kFragment) [[unlikely]] {
    packet = reassemble(port_index, packet);
    if (packet == nullptr) return;
    refused = look_at(port_index, packet);
  }
  if (ports_[port_index].chain < 0) return answer_without_chain(port_index, packet, refused);
  if (refused != DropReason::kNone) return drop_at(port_index, packet, refused);
  enter_chain(port_index, packet);
}

DropReason Switch::look_at(size_t port_index, rte_mbuf* packet) {
  PacketMeta& meta = meta_of(packet);
  const Side side = ports_[port_index].port->config().role;
  const DropReason refused =
      parse(rte_pktmbuf_mtod(packet, const uint8_t*), packet->data_len, side, secret_, meta);
  meta.in_port = static_cast<uint8_t>(port_index);
  meta.arrived_tsc = now_tsc_;
  meta.side = side;
  // What a frame has beyond its packet is not sent on, nor measured against an MTU.
  if (refused == DropReason::kNone) packet->pkt_len = packet->data_len = meta.length;
  return refused;
}

// The datagram that this fragment makes whole, or nullptr. Takes the fragment either way.
rte_mbuf* Switch::reassemble(size_t port_index, rte_mbuf* packet) {
  const auto port = static_cast<uint8_t>(port_index);
  const std::optional<Fragment> fragment =
      read_fragment(rte_pktmbuf_mtod(packet, const uint8_t*), packet->data_len, port);
  if (!fragment) {
    drop_at(port_index, packet, DropReason::kBadFragment);
    return nullptr;
  }
  const std::optional<Reassembly::Whole> whole = reassembly_.add(*fragment, now_ms_);
  const DatagramOrigin origin{whole ? whole->largest_fragment_bytes : 0,
                              fragment->id.identification};
  rte_pktmbuf_free(packet);
  if (!whole) return nullptr;
  auto* datagram = static_cast<rte_mbuf*>(whole->handle);
  datagram->data_off = static_cast<uint16_t>(datagram->data_off + whole->begin);
  datagram->data_len = static_cast<uint16_t>(whole->bytes);
  datagram->pkt_len = whole->bytes;
  set_origin(datagram, origin);
  return datagram;
}

void Switch::answer_without_chain(size_t port_index, rte_mbuf* packet, DropReason refused) {
  const PacketMeta& meta = meta_of(packet);
  const PortState& state = ports_[port_index];
  if (refused == DropReason::kNone && meta.is_wide() && is_ipv6_echo_request(packet) &&
      state.port->is_own_address(meta.addresses.dst))
    return answer_ipv6_echo(port_index, packet);
  if (refused == DropReason::kNone && !meta.is_wide() && is_echo_request(packet) &&
      answers_for(state, meta.key.dst))
    return answer_echo(port_index, packet);
  drop(port_index, packet, refused == DropReason::kNone ? DropReason::kNoChain : refused);
}

void Switch::enter_chain(size_t port_index, rte_mbuf* packet) {
  const PortState& state = ports_[port_index];
  PacketMeta& meta = meta_of(packet);
  if (meta.is_wide()) return enter_chain_ipv6(port_index, packet);
  ChainBlock& chain = header_.chains[state.chain];
  const auto& ip =
      *rte_pktmbuf_mtod_offset(packet, const Ipv4Header*, static_cast<int>(meta.l3_offset));
  const Be32 destination = ip.dst.get();
  if (is_echo_request(packet) && answers_for(state, destination))
    return answer_echo(port_index, packet);
  if (!is_routed(destination)) return drop_of_chain(chain, packet, DropReason::kNotForUs);
  if (!find_bucket(chain, meta, destination))
    return drop_of_chain(chain, packet, DropReason::kNoPortLease);
  const bool translated = meta.side == Side::kOutside && is_external(chain, destination);
  if (!translated && state.port->is_own_address(destination))
    return drop_of_chain(chain, packet, DropReason::kNotForUs);
  if (ip.ttl <= 1) {
    send_icmp_error(port_index, packet, {.type = kIcmpTimeExceeded});
    return drop_of_chain(chain, packet, DropReason::kTtlExceeded);
  }
  if (packet->pkt_len > smallest_mtu_ + kEthernetBytes && !fits_path(port_index, packet)) return;
  meta.chain = static_cast<uint16_t>(state.chain);
  steer(chain, packet, meta);
}

// IPv6 is not translated: nothing but the addresses of the ports is the node's.
void Switch::enter_chain_ipv6(size_t port_index, rte_mbuf* packet) {
  const PortState& state = ports_[port_index];
  PacketMeta& meta = meta_of(packet);
  ChainBlock& chain = header_.chains[state.chain];
  const auto& ip =
      checked_header<Ipv6Header>(rte_pktmbuf_mtod(packet, const uint8_t*), meta.l3_offset);
  const Ipv6Address& destination = ip.addresses.dst;
  const bool ours = state.port->is_own_address(destination);
  if (ours && is_ipv6_echo_request(packet)) return answer_ipv6_echo(port_index, packet);
  // RFC 4291 section 2.5.6: what is of one link stays there.
  const bool routed = is_routed(destination) && !is_link_local(ip.addresses.src);
  if (!state.port->speaks_ipv6() || ours || !routed)
    return drop_of_chain(chain, packet, DropReason::kNotForUs);
  if (ip.hop_limit <= 1) {
    send_icmpv6_error(port_index, packet, {.type = kIcmpv6TimeExceeded});
    return drop_of_chain(chain, packet, DropReason::kTtlExceeded);
  }
  if (packet->pkt_len > smallest_mtu_ + kEthernetBytes && !fits_path(port_index, packet)) return;
  find_bucket(chain, meta, Be32{});
  meta.chain = static_cast<uint16_t>(state.chain);
  steer(chain, packet, meta);
}

// Said before the chain translates, so that the answer quotes the packet as its sender knows it
// (RFC 1191, RFC 8201). False: answered and dropped.
bool Switch::fits_path(size_t port_index, rte_mbuf* packet) {
  const PacketMeta& meta = meta_of(packet);
  ChainBlock& chain = header_.chains[ports_[port_index].chain];
  const auto& ip =
      checked_header<Ipv4Header>(rte_pktmbuf_mtod(packet, const uint8_t*), meta.l3_offset);
  const bool ipv6 = meta.is_wide();
  const bool hairpin = !ipv6 && is_external(chain, ip.dst.get());
  const bool to_inside = meta.side == Side::kOutside || hairpin;
  const uint32_t mtu = ports_[to_inside ? chain.inside_port : chain.outside_port].port->mtu();
  const uint32_t bytes = pools_.is_datagram(packet)
                             ? origin_of(packet).largest_fragment_bytes
                             : static_cast<uint32_t>(meta.length - meta.l3_offset);
  if (bytes <= mtu) return true;
  if (ipv6) {
    send_icmpv6_error(port_index, packet, {.type = kIcmpv6PacketTooBig, .mtu = mtu});
  } else if ((ip.flags_and_offset.get().host() & kIpv4DontFragment) != 0) {
    send_icmp_error(port_index, packet,
                    {.type = kIcmpUnreachable, .code = kIcmpFragmentationNeeded, .mtu = mtu});
  } else {
    return true;
  }
  drop_of_chain(chain, packet, DropReason::kFrameTooBig);
  return false;
}

// A packet from the inside to an address that the chain translates to: it comes back from the
// outside, as if it had been there (RFC 4787 REQ-9). Its time to live is that of one hop.
void Switch::reenter(ChainBlock& chain, rte_mbuf* packet) {
  // The ports of a chain that is being removed feed it no more, while its workers still finish.
  if (ports_[chain.outside_port].chain != int{meta_of(packet).chain})
    return drop_of_chain(chain, packet, DropReason::kNoChain);
  reentered_ = true;
  const DropReason refused = look_at(chain.outside_port, packet);
  if (refused != DropReason::kNone) return drop_of_chain(chain, packet, refused);
  enter_chain(chain.outside_port, packet);
}

// All packets of one inside endpoint meet in one bucket. From the outside of a translated chain the
// bucket is the one that leased the external port; otherwise the destination is the inside endpoint
// itself.
bool Switch::find_bucket(const ChainBlock& chain, PacketMeta& meta, Be32 destination) const {
  if (is_steered_by_lease(chain.external_count > 0, meta.key)) {
    const std::span forwards(chain.forwards, chain.forward_count.load(std::memory_order_acquire));
    if (const Forward* forward = find_forward(forwards, meta.key)) {
      const FlowKey inside = inside_key_of(*forward, meta.key);
      const Scope scope = chain.steer_by == SteerBy::kHost ? Scope::kHost : Scope::kEndpoint;
      meta.bucket =
          static_cast<uint32_t>(steering_hash(scope, inside, secret_)) & (chain.buckets - 1);
      return true;
    }
    for (uint32_t i = 0; i < chain.external_count; ++i) {
      if (!(chain.external[i] == destination)) continue;
      const uint32_t block = meta.key.dst_port.host() / kPortBlockPorts;
      const uint32_t lease = __atomic_load_n(
          &pool_.port_leases(chain.pool_index)[i * kPortBlocks + block], __ATOMIC_RELAXED);
      if (lease == 0) return false;
      meta.bucket = (lease - 1) & (chain.buckets - 1);
      return true;
    }
    if (chain.passes_untranslated.load(std::memory_order_relaxed) == 0) return false;
  }
  const bool inside = meta.side == Side::kInside;
  const Be32 host = inside ? meta.key.src : meta.key.dst;
  const Be16 port = inside ? meta.key.src_port : meta.key.dst_port;
  const uint64_t hash = chain.steer_by == SteerBy::kHost
                            ? hash_endpoint(host, Be16{}, 0, secret_)
                            : hash_endpoint(host, port, meta.key.protocol, secret_);
  meta.bucket = static_cast<uint32_t>(hash) & (chain.buckets - 1);
  return true;
}

void Switch::steer(ChainBlock& chain, rte_mbuf* packet, PacketMeta& meta) {
  const Steering& steering = chain.steering[meta.bucket];
  if (steering.held.load(std::memory_order_relaxed) != 0) {
    // Full only of packets that reenter: ports are not read before.
    if (move_.held.size() == kHeldPackets)
      return drop_of_chain(chain, packet, DropReason::kInboxFull);
    move_.held.push_back(packet);
    return;
  }
  const uint8_t slot = steering.slot.load(std::memory_order_relaxed);
  staged_[slot][staged_count_[slot]++] = packet;
}

void Switch::hand_to_workers() {
  for (const uint8_t slot : active_slots_) {
    const uint32_t count = staged_count_[slot];
    if (count == 0) continue;
    staged_count_[slot] = 0;
    const unsigned given = rte_ring_sp_enqueue_burst(
        arena_.inbox(slot), reinterpret_cast<void**>(staged_[slot].data()), count, nullptr);
    ChainBlock& chain = header_.chains[header_.slots[slot].chain.load(std::memory_order_relaxed)];
    bump(chain.steered, given);
    for (uint32_t i = given; i < count; ++i)
      drop_of_chain(chain, staged_[slot][i], DropReason::kInboxFull);
    ring(header_.slots[slot].doorbell);
  }
}

}  // namespace flowkeep
