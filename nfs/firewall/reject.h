// What the sender of a rejected packet is told: for TCP a reset (RFC 9293 section 3.10.7.1), for
// everything else that the firewall prohibits it (ICMP type 3 code 13, RFC 1812 section 5.2.7.1;
// ICMPv6 type 1 code 1, RFC 4443 section 3.1). The answer's source is the packet's destination.
#pragma once

#include <cstddef>
#include <cstdint>

#include "nfs/packet.h"

namespace flowkeep {

// May the packet be answered? Not a reset (RFC 9293 section 3.10.7.1), not an ICMP error
// (RFC 1122 section 3.2.2, RFC 4443 section 2.4), not what came from or went to a group.
bool may_be_answered(const uint8_t* frame, const PacketMeta& meta);

// Turns the frame into the answer: changes its first kEditableBytes at most, and returns its new
// length. Only of packets that may be answered.
size_t turn_into_rejection(uint8_t* frame, const PacketMeta& meta);

}  // namespace flowkeep
