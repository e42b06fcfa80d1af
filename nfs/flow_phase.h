// Progress of a flow and how long it may be idle.
#pragma once

#include <cstdint>

#include "nfs/packet.h"
#include "state/flow_record.h"

namespace flowkeep {

// Of a chain, for all of its functions: spec.timeouts.
struct Timeouts {
  uint32_t tcp_opening_s = 240;  // half open. All of TCP's as RFC 5382 REQ-5 has them
  uint32_t tcp_established_s = 7440;
  uint32_t tcp_closing_s = 240;  // one side has sent its FIN
  uint32_t tcp_closed_s = 240;   // both have, or one a reset
  uint32_t udp_opening_s = 300;  // unanswered
  uint32_t udp_s = 300;          // 5 minutes recommended (RFC 4787 REQ-5)
  uint32_t icmp_s = 60;          // 60 seconds at least (RFC 5508 REQ-2)
  uint32_t other_s = 600;

  uint32_t of(uint8_t protocol, FlowPhase phase) const {
    switch (protocol) {
      case kProtocolTcp:
        return of_tcp(phase);
      case kProtocolUdp:
        return phase == FlowPhase::kOpening ? udp_opening_s : udp_s;
      case kProtocolIcmp:
      case kProtocolIcmpv6:
        return icmp_s;
      default:
        return other_s;
    }
  }

 private:
  uint32_t of_tcp(FlowPhase phase) const {
    switch (phase) {
      case FlowPhase::kEstablished:
        return tcp_established_s;
      case FlowPhase::kClosingInside:
      case FlowPhase::kClosingOutside:
        return tcp_closing_s;
      case FlowPhase::kClosed:
        return tcp_closed_s;
      default:
        return tcp_opening_s;
    }
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

// A TCP connection stands when its initiator acknowledges the answer: before that it is half open,
// and costs whoever sends SYNs from addresses that are not his nothing. Other flows, when they are
// answered.
inline bool establishes(const FlowRecord& record, uint8_t tcp_flags, Side side) {
  if (record.inside_key.protocol != kProtocolTcp) return side != record.initiator;
  return side == record.initiator && (tcp_flags & (kTcpSyn | kTcpAck | kTcpRst)) == kTcpAck;
}

// The phase after one more packet of the flow from `side`.
inline FlowPhase next_phase(const FlowRecord& record, uint8_t tcp_flags, Side side) {
  FlowPhase phase = record.phase;
  if (phase == FlowPhase::kOpening && establishes(record, tcp_flags, side))
    phase = FlowPhase::kEstablished;
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
