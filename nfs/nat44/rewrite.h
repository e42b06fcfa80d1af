// Changes one endpoint of a packet: addresses, ports and identifiers, and every checksum that
// covers them, incrementally.
//
// Touches the first kEditableBytes of the frame only, and trusts the offsets in PacketMeta.
#pragma once

#include <cstdint>

#include "nfs/forward.h"
#include "nfs/packet.h"

namespace flowkeep {

// The source of a packet that leaves the inside; the destination of one that comes from the
// outside.
void rewrite_source(uint8_t* frame, const PacketMeta& meta, Endpoint source);
void rewrite_destination(uint8_t* frame, const PacketMeta& meta, Endpoint destination);

// The same for an ICMP error, whose quoted packet went the other way (RFC 5508 section 4).
// From the inside: the quoted destination, and the error's own source, which may be any router
// inside, become the external endpoint (REQ-5). From the outside: the quoted source, and the
// error's destination, become the inside endpoint (REQ-4).
void rewrite_error_from_inside(uint8_t* frame, const PacketMeta& meta, Endpoint external);
void rewrite_error_from_outside(uint8_t* frame, const PacketMeta& meta, Endpoint inside);

}  // namespace flowkeep
