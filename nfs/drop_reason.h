// Why a packet was not forwarded. Each reason is a counter of the same name, everywhere.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace flowkeep {

enum class DropReason : uint8_t {
  kNone = 0,
  // The switch, before steering.
  kTruncatedEthernet,
  kTruncatedIpv4,  // header or total length beyond the frame
  kBadIpv4Header,  // version, header length, total length shorter than the header
  kBadIpv4Checksum,
  kTruncatedL4,   // TCP, UDP or ICMP header beyond the packet
  kBadTcpHeader,  // data offset below 5 words or beyond the packet
  kBadUdpLength,
  kBadIcmpChecksum,       // of an ICMP error, or of the IPv4 header that it quotes
  kUnsupportedEtherType,  // neither IPv4 nor IPv6, or more than two VLAN tags
  kIpv4SourceRoute,       // options that choose the way (RFC 7126)
  kTruncatedIpv6,         // header, payload or an extension header beyond the frame
  kBadIpv6Header,         // version
  kIpv6Extensions,        // more, or longer ones than are accepted, malformed, or in a wrong place
  kIpv6RoutingType0,      // RFC 5095
  kFragment,              // that nobody reassembles
  kBadFragment,           // empty, beyond 64 KiB, or not the last and no multiple of 8 bytes
  kUnsupportedFragment,   // an ICMP error about a later fragment
  kUnsupportedProtocol,   // ICMP of the other IP version; no next header; IPv6's extensions in IPv4
  kUnsupportedIcmp,       // neither echo nor an error about a flow
  kNeighbourDiscovery,    // that is not for the node
  kBadNeighbourDiscovery,  // hop limit, checksum, code or length (RFC 4861)
  kMulticastListener,      // nobody listens
  kBadSource,              // IPv4: 0.0.0.0/8, 127/8, multicast, broadcast; IPv6: ::, ::1, multicast
  kNotForUs,  // another host's MAC address, multicast, or a local address without a service
  kTtlExceeded,
  kNoChain,      // port without a chain
  kWrongVlan,    // the frame's VLAN tags are not the port's
  kNoPortLease,  // from the outside, to a translated port that no bucket holds
  kInboxFull,
  kFragmentOverlap,    // of a datagram whose fragments overlap or contradict each other
  kFragmentDuplicate,  // what it brings is there already
  kFragmentTimeout,    // its datagram did not become whole in time
  kFragmentTableFull,  // the oldest datagrams give way, or no buffer is left
  // The switch, after the worker.
  kNoRoute,
  kNeighbourUnresolved,
  kPortTxFull,
  kFrameTooBig,     // larger than the port's MTU, and may not be fragmented
  kNoPacketBuffer,  // none free for its fragments
  // The supervisor.
  kPoisonPacket,  // killed its worker twice; kept as a dead letter
  // The chain runtime.
  kNoFlow,  // an ICMP error, or a packet from the outside, that belongs to no flow
  kPoolFull,
  kPoolDamaged,
  // Functions.
  kFirewallDenied,            // by a rule, or because no rule matched
  kFirewallRejected,          // by a rule, and its sender was told
  kFirewallRateLimited,       // beyond its rule's rate limit
  kHalfOpenLimit,             // too many TCP connections are half open
  kHalfOpenDestinationLimit,  // to that destination
  kTcpOutOfWindow,            // a segment that does not belong to its connection
  kNatNoMapping,              // from the outside, to an external endpoint that nobody has
  kNatFiltered,               // from the outside, to one whose owner has not asked for it
  kNatHostLimit,              // the inside host has as many mappings as it may have
  kNatPortsExhausted,
  kNatUnsupportedProtocol,
  kCount
};
inline constexpr size_t kDropReasons = static_cast<size_t>(DropReason::kCount);

// "truncated_ethernet", "firewall_denied", ...
std::string_view drop_reason_name(DropReason reason);

}  // namespace flowkeep
