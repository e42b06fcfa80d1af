// Neighbour discovery for IPv6 (RFC 4861): solicitations for the port's own addresses are answered,
// those of neighbours sent, and what neighbours say is learned. The node is a router, but sends no
// router advertisements.
#include <rte_mbuf.h>

#include <cstring>

#include "dataplane/switch/icmpv6.h"
#include "dataplane/switch/neighbour_message.h"
#include "dataplane/switch/switch.h"

namespace flowkeep {
namespace {

constexpr uint8_t kHopLimit = 255;  // that of one who is on the link (RFC 4861 section 7.1)
constexpr Ipv6Address kAllNodes = {0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
constexpr size_t kMessageBytes = NeighbourMessage::kBytes + NeighbourMessage::kLinkLayerOptionBytes;

// RFC 2464 section 7.
Mac group_mac(const Ipv6Address& group) {
  return {{0x33, 0x33, group[12], group[13], group[14], group[15]}};
}

rte_mbuf* make_message(rte_mempool* pool, const WideAddresses& addresses, uint8_t type,
                       uint8_t flags, const Ipv6Address& target, const rte_ether_addr& mac) {
  rte_mbuf* packet = make_icmpv6(pool, addresses, kHopLimit, kMessageBytes);
  if (packet == nullptr) return nullptr;
  auto* frame = rte_pktmbuf_mtod(packet, uint8_t*);
  uint8_t* message = frame + kIcmpv6Offset;
  message[0] = type;
  message[4] = flags;
  std::memcpy(message + 8, target.data(), target.size());
  uint8_t* option = message + NeighbourMessage::kBytes;
  option[0] = type == kNeighbourSolicitation ? NeighbourMessage::kSourceOption
                                             : NeighbourMessage::kTargetOption;
  option[1] = 1;
  std::memcpy(option + 2, mac.addr_bytes, 6);
  write_icmpv6_checksum(frame, kIcmpv6Offset, packet->data_len);
  return packet;
}

}  // namespace

void Switch::handle_neighbour_discovery(size_t port_index, rte_mbuf* packet) {
  PortState& state = ports_[port_index];
  const PacketMeta& meta = meta_of(packet);
  const auto* frame = rte_pktmbuf_mtod(packet, const uint8_t*);
  const auto message = NeighbourMessage::read(
      frame + meta.l4_offset, static_cast<size_t>(meta.length - meta.l4_offset), meta.addresses);
  if (!message || !state.port->speaks_ipv6())
    return drop(port_index, packet, DropReason::kNeighbourDiscovery);
  const bool ours = state.port->is_own_address(message->target);
  if (message->is_solicitation && ours) {
    Mac asking = message->link_layer.value_or(Mac{});
    if (message->link_layer && !state.port->is_own_address(meta.addresses.src))
      state.ipv6_neighbours->learn(meta.addresses.src, asking, true, now_ms_);
    if (!message->link_layer)
      std::memcpy(asking.bytes.data(), checked_header<EthernetHeader>(frame, 0).source, 6);
    advertise(port_index, message->target, meta.addresses.src, asking);
  } else if (!message->is_solicitation && !ours && message->link_layer) {
    if ((message->flags & NeighbourMessage::kOverride) != 0)
      state.ipv6_neighbours->learn(message->target, *message->link_layer, false, now_ms_);
    else
      state.ipv6_neighbours->confirm(message->target, *message->link_layer, now_ms_);
  }
  rte_pktmbuf_free(packet);
}

// Who asked without an address of its own hears it with all others (RFC 4861 section 7.2.4).
void Switch::advertise(size_t port_index, const Ipv6Address& target, const Ipv6Address& to,
                       const Mac& mac) {
  const SwitchPort& port = *ports_[port_index].port;
  const bool to_all = is_unspecified(to);
  const uint8_t flags = NeighbourMessage::kRouter | NeighbourMessage::kOverride;
  rte_mbuf* packet =
      make_message(pools_.frames(), {target, to_all ? kAllNodes : to}, kNeighbourAdvertisement,
                   to_all ? flags : static_cast<uint8_t>(flags | NeighbourMessage::kSolicited),
                   target, port.mac());
  if (packet != nullptr) transmit(port_index, packet, to_all ? group_mac(kAllNodes) : mac);
}

void Switch::send_solicitation(size_t port_index, const Ipv6Address& target) {
  const SwitchPort& port = *ports_[port_index].port;
  const Ipv6Address group = solicited_node_group(target);
  rte_mbuf* packet = make_message(pools_.frames(), {port.source_for(target), group},
                                  kNeighbourSolicitation, 0, target, port.mac());
  if (packet != nullptr) transmit(port_index, packet, group_mac(group));
}

// RFC 4861 section 7.2.6.
void Switch::announce_ipv6_addresses(size_t port_index) {
  const SwitchPort& port = *ports_[port_index].port;
  if (!port.speaks_ipv6()) return;
  advertise(port_index, port.link_local(), Ipv6Address{}, Mac{});
  for (const Ipv6Prefix& own : port.config().ipv6_addresses)
    advertise(port_index, own.address, Ipv6Address{}, Mac{});
}

}  // namespace flowkeep
