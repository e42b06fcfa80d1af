// parse(): what the switch finds out about a packet, once, with every bound checked.
//
// Understood: Ethernet with up to two VLAN tags (802.1Q, 802.1ad), IPv4 with options, IPv6 with
// extension headers, and in them TCP, UDP, ICMP and ICMPv6 echo, and those ICMP errors that concern
// a flow. Packets of other protocols are of flows without ports. Fills every field of PacketMeta
// that depends on the frame alone; `bucket`, `chain`, `in_port` and `arrived_tsc` are left to the
// switch. Reads nothing beyond `length`.
//
// Link-local addresses and multicast destinations are accepted: whether the packet is for the node
// itself, and what may be forwarded, is the switch's to know.
#pragma once

#include <cstdint>

#include "nfs/packet.h"

namespace flowkeep {

// Of an IPv6 packet; RFC 8200 sets no limits, RFC 8504 section 5.3 lets a node have some.
inline constexpr int kMaxExtensionHeaders = 8;
inline constexpr uint16_t kMaxExtensionBytes = 256;

// Returns
//   kNone                of a flow, or the first of one;
//   kFragment            to be reassembled, then parsed again;
//   kNeighbourDiscovery  ICMPv6 types 133 to 137, valid as far as RFC 4861 asks of all of them
//                        (hop limit, checksum, code, length); options are not looked at;
//   kMulticastListener   ICMPv6 types 130 to 132 and 143 (MLD), with a hop limit of 1;
//   otherwise why the packet is dropped; `meta` is then unspecified.
// With the three that are the switch's to take (if it does not, they are the reason of the drop),
// `meta` has everything but `hash`, ports and `tcp_flags`. A fragment: the IPv4 header at l3_offset
// says the rest; of IPv6 the fragment header lies at fragment_header_offset and l4_offset is behind
// it. What it carries ends at `length`.
DropReason parse(const uint8_t* frame, uint16_t length, Side side, HashSecret secret,
                 PacketMeta& meta);

// Is the transport checksum of a packet right that parse() has accepted: TCP, UDP, ICMP, ICMPv6?
// True where there is none to be checked: other protocols, UDP without one (RFC 768; RFC 6936 for
// IPv6), a routing header that has still to change the destination. Reads the whole packet.
bool l4_checksum_holds(const uint8_t* frame, const PacketMeta& meta);

}  // namespace flowkeep
