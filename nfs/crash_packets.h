// Packets for recorded runs: of flows that are open, of new ones and of none, made from the flow
// records themselves.
#pragma once

#include <cstdint>
#include <random>
#include <vector>

#include "nfs/packet_builder.h"
#include "state/flow_record.h"

namespace flowkeep {

struct CrashPacket {
  Side side = Side::kInside;
  Bytes frame;
};

// A packet of the flow as it looks on the wire at `side`. TCP: with these flags.
CrashPacket packet_of_flow(const FlowRecord& flow, Side side, uint8_t tcp_flags);
// The first packet of a flow from an inside endpoint and to a remote one that are drawn at random;
// some are forbidden by the chain's rules.
CrashPacket first_packet(std::mt19937_64& random);
// Some packet of the flow: more of the same, an answer, an end.
CrashPacket next_packet(const FlowRecord& flow, std::mt19937_64& random);
// A packet from the outside to a port of ours that belongs to no flow.
CrashPacket stray_packet(const FlowRecord& flow, std::mt19937_64& random);

}  // namespace flowkeep
