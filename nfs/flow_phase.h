// Progress of a flow and how long it may be idle.
#pragma once

#include <cstdint>

#include "nfs/packet.h"
#include "state/flow_record.h"

namespace flowkeep {

struct Timeouts {
  uint32_t tcp_established_s = 7440;  // 2 hours and 4 minutes (RFC 5382 REQ-5)
  uint32_t tcp_transitory_s = 240;    // opening, closing, closed: 4 minutes (RFC 5382 REQ-5)
  uint32_t udp_s = 300;               // 5 minutes recommended (RFC 4787 REQ-5)
  uint32_t icmp_s = 60;               // 60 seconds at least (RFC 5508 REQ-2)
  uint32_t other_s = 300;             // protocols without ports, as UDP

  uint32_t of(uint8_t protocol, FlowPhase phase) const {
    if (protocol == kProtocolTcp) {
      return phase == FlowPhase::kEstablished ? tcp_established_s : tcp_transitory_s;
    }
    if (protocol == kProtocolUdp) return udp_s;
    return protocol == kProtocolIcmp || protocol == kProtocolIcmpv6 ? icmp_s : other_s;
  }
};

// `resumed_s`: when the node started. After a power failure last_seen_s may be older than the last
// packet, or older than the flow; and no packet could pass while the node was away. So a flow is
// idle from then on at the earliest. A clock that was set back makes no flow expire: differences
// are signed.
inline bool expired(const FlowRecord& record, const Timeouts& timeouts, uint32_t now_s,
                    uint32_t resumed_s) {
  const bool seen_since = static_cast<int32_t>(record.last_seen_s - resumed_s) >= 0;
  const auto idle_s = static_cast<int32_t>(now_s - (seen_since ? record.last_seen_s : resumed_s));
  return idle_s > static_cast<int32_t>(timeouts.of(record.inside_key.protocol, record.phase));
}

inline bool is_first_tcp_segment(uint8_t flags) {
  return (flags & (kTcpSyn | kTcpAck | kTcpRst | kTcpFin)) == kTcpSyn;
}

inline bool is_closing(FlowPhase phase) {
  return phase >= FlowPhase::kClosingInside;
}

// The phase after one more packet of the flow from `side`.
inline FlowPhase next_phase(const FlowRecord& record, uint8_t tcp_flags, Side side) {
  FlowPhase phase = record.phase;
  if (phase == FlowPhase::kOpening && side != record.initiator) phase = FlowPhase::kEstablished;
  if (record.inside_key.protocol != kProtocolTcp) return phase;
  if (tcp_flags & kTcpRst) return FlowPhase::kClosed;
  // The initiator begins anew with the same ports: the connection before was over for it.
  if (is_closing(phase) && side == record.initiator && is_first_tcp_segment(tcp_flags)) {
    return FlowPhase::kOpening;
  }
  if (!(tcp_flags & kTcpFin) || phase == FlowPhase::kClosed) return phase;
  const FlowPhase own =
      side == Side::kInside ? FlowPhase::kClosingInside : FlowPhase::kClosingOutside;
  const bool other_closed = is_closing(phase) && phase != own;
  return other_closed ? FlowPhase::kClosed : own;
}

}  // namespace flowkeep
