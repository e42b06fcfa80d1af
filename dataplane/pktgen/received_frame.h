// What a received frame is, with every bound checked; and its reversal for --echo. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "dataplane/pktgen/packet_format.h"
#include "dataplane/pktgen/probe_tag.h"
#include "state/flow_key.h"

namespace flowkeep::pktgen {

struct TaggedPacket {
  ProbeTag tag;
  Be32 source;
  Be16 source_port;
  uint8_t protocol = 0;
  uint16_t l4_offset = 0;
  uint16_t l4_bytes = 0;  // header and payload
};

// The EtherType, or 0 for a frame that is too short.
uint16_t ether_type(std::span<const uint8_t> frame);

// A whole (unfragmented) IPv4 UDP or TCP packet with a tag; otherwise nothing.
std::optional<TaggedPacket> read_tagged(std::span<const uint8_t> frame);

// Are the IPv4 header's and the L4 checksum right? A UDP packet without one (0) is wrong: all are
// sent with one.
bool checksums_valid(std::span<const uint8_t> frame, const TaggedPacket& packet);

// Turns the packet round: swaps Ethernet addresses, IPv4 addresses and ports. A SYN becomes a
// SYN+ACK that acknowledges it.
void reverse(std::span<uint8_t> frame, const TaggedPacket& packet);

}  // namespace flowkeep::pktgen
