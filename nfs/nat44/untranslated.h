// Destinations towards which nothing is translated (RFC 6888 REQ-6).
//
// Thread rule: immutable.
#pragma once

#include <cstdint>

#include "nfs/ipv4_prefix.h"
#include "nfs/packet.h"

namespace flowkeep {

struct UntranslatedDestination {
  Ipv4Prefix prefix;
  uint8_t protocol = 0;  // 0: any
  uint16_t first_port = 0, last_port = 0xffff;

  // `inside`: a flow's key as its inside host has it.
  bool has(const FlowKey& inside) const {
    const uint16_t port = inside.dst_port.host();
    return prefix.contains(inside.dst) && (protocol == 0 || protocol == inside.protocol) &&
           first_port <= port && port <= last_port;
  }
};

}  // namespace flowkeep
