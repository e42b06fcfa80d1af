// What the switch says itself: ARP (RFC 826), ICMP echo replies for its own addresses (RFC
// 1122 3.2.2.6) and ICMP time exceeded (RFC 792, RFC 1812 5.3.1).
#include <rte_ip.h>
#include <rte_mbuf.h>

#include <algorithm>
#include <cstring>

#include "dataplane/switch/switch.h"

namespace flowkeep {
namespace {

constexpr size_t kEthernetBytes = 14;

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

uint16_t internet_checksum(const uint8_t* bytes, size_t count) {
  return static_cast<uint16_t>(~rte_raw_cksum(bytes, count));
}

void write_checksum(uint8_t* at, const uint8_t* bytes, size_t count) {
  std::memset(at, 0, 2);
  const uint16_t checksum = internet_checksum(bytes, count);
  std::memcpy(at, &checksum, 2);
}

}  // namespace

// The port's own addresses and, outside, the addresses that its chain translates to.
bool Switch::answers_for(const PortState& state, Be32 address) const {
  if (state.port->is_own_address(address)) return true;
  if (state.chain < 0 || state.port->config().role != Side::kOutside) return false;
  const ChainBlock& chain = header_.chains[state.chain];
  return std::any_of(chain.external, chain.external + chain.external_count,
                     [address](Be32 external) { return external == address; });
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
  Neighbours::Mac sender;
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
  SwitchPort& port = *ports_[port_index].port;
  rte_mbuf* packet = rte_pktmbuf_alloc(packets_);
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
  arp->sender = port.source_for(address).raw;
  arp->target = address.raw;
  transmit(port_index, packet, Neighbours::Mac{{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}});
}

void Switch::answer_echo(size_t port_index, rte_mbuf* packet) {
  const PacketMeta& meta = *static_cast<PacketMeta*>(rte_mbuf_to_priv(packet));
  auto* frame = rte_pktmbuf_mtod(packet, uint8_t*);
  uint8_t* ip = frame + meta.l3_offset;
  uint8_t* icmp = frame + meta.l4_offset;
  const size_t icmp_bytes = meta.length - meta.l4_offset;
  icmp[0] = kIcmpEchoReply;
  write_checksum(icmp + 2, icmp, icmp_bytes);
  uint8_t address[4];
  std::memcpy(address, ip + 12, 4);
  std::memcpy(ip + 12, ip + 16, 4);
  std::memcpy(ip + 16, address, 4);
  ip[8] = 64;
  write_checksum(ip + 10, ip, static_cast<size_t>(meta.l4_offset - meta.l3_offset));
  Be32 destination;
  std::memcpy(&destination.raw, address, 4);
  const DropReason refused = route(port_index, packet, destination);
  if (refused != DropReason::kNone) drop(port_index, packet, refused);
}

void Switch::send_time_exceeded(size_t port_index, rte_mbuf* original, const PacketMeta& meta) {
  PortState& state = ports_[port_index];
  const bool about_error = meta.inner_l3_offset != 0;  // RFC 1122 3.2.2: no error about an error
  if (about_error || state.icmp_budget == 0) return;
  const auto* cause = rte_pktmbuf_mtod(original, const uint8_t*) + meta.l3_offset;
  Be32 sender;
  std::memcpy(&sender.raw, cause + 12, 4);
  const Be32 hop = state.port->next_hop(sender);
  const Be32 own = state.port->source_for(hop);
  rte_mbuf* packet = hop.raw == 0 || own.raw == 0 ? nullptr : rte_pktmbuf_alloc(packets_);
  if (packet == nullptr) return;
  --state.icmp_budget;
  // Quoted: the IP header and the 8 bytes after it, or what there is of them.
  const size_t quoted = std::min<size_t>(static_cast<size_t>(meta.l4_offset - meta.l3_offset) + 8,
                                         static_cast<size_t>(meta.length - meta.l3_offset));
  const size_t ip_bytes = 20 + 8 + quoted;
  auto* frame = reinterpret_cast<uint8_t*>(
      rte_pktmbuf_append(packet, static_cast<uint16_t>(kEthernetBytes + ip_bytes)));
  std::memset(frame, 0, kEthernetBytes + 28);
  frame[12] = 0x08;
  uint8_t* ip = frame + kEthernetBytes;
  ip[0] = 0x45;
  ip[1] = 0xc0;  // RFC 1812 4.3.2.5: precedence internetwork control
  ip[2] = static_cast<uint8_t>(ip_bytes >> 8);
  ip[3] = static_cast<uint8_t>(ip_bytes);
  ip[8] = 64;
  ip[9] = kProtocolIcmp;
  std::memcpy(ip + 12, &own.raw, 4);
  std::memcpy(ip + 16, &sender.raw, 4);
  write_checksum(ip + 10, ip, 20);
  uint8_t* icmp = ip + 20;
  icmp[0] = kIcmpTimeExceeded;
  std::memcpy(icmp + 8, cause, quoted);
  write_checksum(icmp + 2, icmp, 8 + quoted);
  const DropReason refused = route(port_index, packet, sender);
  if (refused != DropReason::kNone) drop(port_index, packet, refused);
}

}  // namespace flowkeep
