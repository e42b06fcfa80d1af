// parse(): what the switch finds out about a packet, once, with every bound checked.
//
// Understood: Ethernet with IPv4 (options are stepped over) and in it TCP, UDP, ICMP echo, and
// those ICMP errors that concern a flow. Fills every field of PacketMeta that depends on the frame
// alone; `bucket`, `chain`, `in_port` and `arrived_tsc` are left to the switch. Reads nothing
// beyond `length`.
#pragma once

#include <cstdint>

#include "nfs/packet.h"

namespace flowkeep {

// Returns kNone, or why the packet cannot be steered; `meta` is then unspecified.
DropReason parse(const uint8_t* frame, uint16_t length, Side side, HashSecret secret,
                 PacketMeta& meta);

}  // namespace flowkeep
