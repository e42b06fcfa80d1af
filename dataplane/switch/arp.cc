// ARP (RFC 826), for the port's own addresses and those that its chain translates to.
#include <rte_mbuf.h>

#include <algorithm>
#include <cstring>

#include "dataplane/switch/switch.h"

namespace flowkeep {
namespace {

constexpr Mac kBroadcast{{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}};

constexpr uint16_t network(uint16_t host) {
  return Be16::from_host(host).raw;
}

struct [[gnu::packed]] ArpPacket {  // RFC 826, for Ethernet and IPv4
  uint8_t destination[6], source[6];
  uint16_t ether_type;  // all in network order
  uint16_t hardware, protocol;
  uint8_t hardware_bytes, protocol_bytes;
  uint16_t operation;
  uint8_t sender_mac[6];
  uint32_t sender;
  uint8_t target_mac[6];
  uint32_t target;
};
static_assert(sizeof(ArpPacket) == 42);

}  // namespace

// The port's own addresses and, outside, the addresses that its chain translates to.
bool Switch::answers_for(const PortState& state, Be32 address) const {
  if (state.port->is_own_address(address)) return true;
  if (state.chain < 0 || state.port->config().role != Side::kOutside) return false;
  return is_external(header_.chains[state.chain], address);
}

void Switch::handle_arp(size_t port_index, rte_mbuf* packet) {
  PortState& state = ports_[port_index];
  if (packet->data_len < sizeof(ArpPacket))
    return drop(port_index, packet, DropReason::kTruncatedEthernet);
  auto* arp = rte_pktmbuf_mtod(packet, ArpPacket*);
  const bool ethernet_ipv4 = arp->hardware == network(1) && arp->protocol == network(0x0800) &&
                             arp->hardware_bytes == 6 && arp->protocol_bytes == 4;
  const uint16_t operation = Be16{arp->operation}.host();
  const Be32 asked{arp->target};
  const Be32 asking{arp->sender};
  if (!ethernet_ipv4 || (operation != 1 && operation != 2)) {
    return drop(port_index, packet, DropReason::kUnsupportedEtherType);
  }
  const bool for_us = answers_for(state, asked);
  Mac sender;
  std::memcpy(sender.bytes.data(), arp->sender_mac, 6);
  if (asking.raw != 0 && !answers_for(state, asking))
    state.neighbours->learn(asking, sender, for_us, now_ms_);
  if (operation != 1 || !for_us) {
    rte_pktmbuf_free(packet);
    return;
  }
  std::memcpy(arp->target_mac, arp->sender_mac, 6);
  arp->target = arp->sender;
  std::memcpy(arp->sender_mac, state.port->mac().addr_bytes, 6);
  arp->sender = asked.raw;
  arp->operation = network(2);
  transmit(port_index, packet, sender);
}

void Switch::send_arp_request(size_t port_index, Be32 address) {
  broadcast_arp(port_index, ports_[port_index].port->source_for(address), address);
}

// A request that asks for its own sender: an announcement (RFC 5227 section 2.3).
void Switch::announce(size_t port_index, Be32 address) {
  broadcast_arp(port_index, address, address);
}

void Switch::broadcast_arp(size_t port_index, Be32 sender, Be32 target) {
  SwitchPort& port = *ports_[port_index].port;
  rte_mbuf* packet = rte_pktmbuf_alloc(pools_.frames());
  if (packet == nullptr) return;
  auto* arp = reinterpret_cast<ArpPacket*>(rte_pktmbuf_append(packet, sizeof(ArpPacket)));
  *arp = ArpPacket{};
  arp->ether_type = network(0x0806);
  arp->hardware = network(1);
  arp->protocol = network(0x0800);
  arp->hardware_bytes = 6;
  arp->protocol_bytes = 4;
  arp->operation = network(1);
  std::memcpy(arp->sender_mac, port.mac().addr_bytes, 6);
  arp->sender = sender.raw;
  arp->target = target.raw;
  transmit(port_index, packet, kBroadcast);
}

// The addresses that this port answers for, announced when they come up.
void Switch::announce_addresses(size_t port_index) {
  PortState& state = ports_[port_index];
  announced_.clear();
  for (const Ipv4Prefix& own : state.port->config().addresses) announced_.push_back(own.address);
  if (state.chain >= 0 && state.port->config().role == Side::kOutside) {
    const ChainBlock& chain = header_.chains[state.chain];
    announced_.insert(announced_.end(), chain.external, chain.external + chain.external_count);
  }
  const bool link_up = state.port->block().link_up.load(std::memory_order_relaxed) != 0;
  if (!state.announcements.due(link_up, announced_, now_ms_)) return;
  for (const Be32 address : announced_) announce(port_index, address);
  announce_ipv6_addresses(port_index);
}

}  // namespace flowkeep
