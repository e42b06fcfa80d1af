// TcpSegment: what connection tracking looks at in a TCP segment.
#pragma once

#include <cstdint>

#include "nfs/packet.h"

namespace flowkeep {

struct TcpSegment {
  uint32_t sequence = 0;
  uint32_t acknowledgement = 0;  // if the flag is set
  uint32_t payload_bytes = 0;
  uint16_t window = 0;  // as it lies in the header, not scaled
  uint8_t flags = 0;
  bool offers_scale = false;  // a SYN with the window scale option (RFC 7323)
  uint8_t scale = 0;          // 0 to 14

  bool has(uint8_t flag) const { return (flags & flag) != 0; }
  // Sequence number after it: SYN and FIN take one each.
  uint32_t end() const {
    return sequence + payload_bytes + (has(kTcpSyn) ? 1U : 0U) + (has(kTcpFin) ? 1U : 0U);
  }
};

// Of a frame that parse() has accepted as TCP.
TcpSegment read_tcp_segment(const uint8_t* frame, const PacketMeta& meta);

}  // namespace flowkeep
