#include "nfs/drop_reason.h"

namespace flowkeep {

// A switch without default, so that the compiler demands a name for each new reason.
std::string_view drop_reason_name(DropReason reason) {
  switch (reason) {
    case DropReason::kNone:
      return "none";
    case DropReason::kTruncatedEthernet:
      return "truncated_ethernet";
    case DropReason::kTruncatedIpv4:
      return "truncated_ipv4";
    case DropReason::kBadIpv4Header:
      return "bad_ipv4_header";
    case DropReason::kBadIpv4Checksum:
      return "bad_ipv4_checksum";
    case DropReason::kTruncatedL4:
      return "truncated_l4";
    case DropReason::kBadTcpHeader:
      return "bad_tcp_header";
    case DropReason::kBadUdpLength:
      return "bad_udp_length";
    case DropReason::kBadIcmpChecksum:
      return "bad_icmp_checksum";
    case DropReason::kUnsupportedEtherType:
      return "unsupported_ether_type";
    case DropReason::kIpv4SourceRoute:
      return "ipv4_source_route";
    case DropReason::kTruncatedIpv6:
      return "truncated_ipv6";
    case DropReason::kBadIpv6Header:
      return "bad_ipv6_header";
    case DropReason::kIpv6Extensions:
      return "ipv6_extensions";
    case DropReason::kIpv6RoutingType0:
      return "ipv6_routing_type0";
    case DropReason::kFragment:
      return "fragment";
    case DropReason::kBadFragment:
      return "bad_fragment";
    case DropReason::kUnsupportedFragment:
      return "unsupported_fragment";
    case DropReason::kUnsupportedProtocol:
      return "unsupported_protocol";
    case DropReason::kUnsupportedIcmp:
      return "unsupported_icmp";
    case DropReason::kNeighbourDiscovery:
      return "neighbour_discovery";
    case DropReason::kBadNeighbourDiscovery:
      return "bad_neighbour_discovery";
    case DropReason::kMulticastListener:
      return "multicast_listener";
    case DropReason::kBadSource:
      return "bad_source";
    case DropReason::kNotForUs:
      return "not_for_us";
    case DropReason::kTtlExceeded:
      return "ttl_exceeded";
    case DropReason::kNoChain:
      return "no_chain";
    case DropReason::kNoPortLease:
      return "no_port_lease";
    case DropReason::kInboxFull:
      return "inbox_full";
    case DropReason::kNoRoute:
      return "no_route";
    case DropReason::kNeighbourUnresolved:
      return "neighbour_unresolved";
    case DropReason::kPortTxFull:
      return "port_tx_full";
    case DropReason::kFrameTooBig:
      return "frame_too_big";
    case DropReason::kPoisonPacket:
      return "poison_packet";
    case DropReason::kNoFlow:
      return "no_flow";
    case DropReason::kPoolFull:
      return "pool_full";
    case DropReason::kPoolDamaged:
      return "pool_damaged";
    case DropReason::kFirewallDenied:
      return "firewall_denied";
    case DropReason::kFirewallRejected:
      return "firewall_rejected";
    case DropReason::kFirewallRateLimited:
      return "firewall_rate_limited";
    case DropReason::kNatNoMapping:
      return "nat_no_mapping";
    case DropReason::kNatFiltered:
      return "nat_filtered";
    case DropReason::kNatHostLimit:
      return "nat_host_limit";
    case DropReason::kNatPortsExhausted:
      return "nat_ports_exhausted";
    case DropReason::kNatUnsupportedProtocol:
      return "nat_unsupported_protocol";
    case DropReason::kCount:
      break;
  }
  return "unknown";
}

}  // namespace flowkeep
