// What the switch found out about a packet, and the view that functions get of it.
//
// A packet is parsed once, by the switch, with every bound checked (nfs/parse.h). The result
// travels with the packet as PacketMeta; functions trust its offsets and do not parse again.
#pragma once

#include <cstddef>
#include <cstdint>

#include "nfs/drop_reason.h"
#include "state/flow_key.h"

namespace flowkeep {

inline constexpr uint8_t kProtocolIcmp = 1;
inline constexpr uint8_t kProtocolTcp = 6;
inline constexpr uint8_t kProtocolUdp = 17;
inline constexpr uint8_t kProtocolIcmpv6 = 58;

inline constexpr uint8_t kTcpFin = 0x01, kTcpSyn = 0x02, kTcpRst = 0x04, kTcpAck = 0x10;

// Bytes from the start of the frame that a function may change: they are saved before the first
// change, so that a packet whose burst did not commit can be given to another worker as it came.
inline constexpr size_t kEditableBytes = 192;

// kReply: refused for its reason, and turned in place into the answer to its sender, which leaves
// by the port where the packet came from.
enum class Verdict : uint8_t { kForward = 0, kDrop = 1, kReply = 2 };

// Counters of functions that one packet can count at.
inline constexpr size_t kPacketCounts = 4;

// One cache line, in the packet's private area. All offsets from the start of the frame.
struct alignas(64) PacketMeta {
  FlowKey key;          // of an ICMP error: the key of the flow it is about, as that flow's packets
                        // from the error's side look (the quoted packet's key, reversed)
  uint64_t hash = 0;    // hash_key(key)
  uint32_t bucket = 0;  // within the chain
  uint16_t chain = 0;
  uint16_t length = 0;  // of the frame, bytes, without padding beyond the IP total length
  uint16_t l3_offset = 0;
  uint16_t l4_offset = 0;
  uint16_t inner_l3_offset = 0;  // ICMP error: the quoted IPv4 header; otherwise 0
  uint16_t inner_l4_offset = 0;
  uint8_t tcp_flags = 0;
  Side side = Side::kInside;  // port that it entered by
  Verdict verdict = Verdict::kForward;
  DropReason reason = DropReason::kNone;
  uint8_t in_port = 0;        // index in the node's ports
  uint8_t revision = 0;       // that ran it: the low bits, for the numbers in `counts`
  uint16_t reply_length = 0;  // kReply: of the frame as it now is, bytes
  uint64_t arrived_tsc = 0;   // when the switch received it
  // What the functions counted: numbers of the chain's counters plus 1; 0: none. The switch counts,
  // because it sees each packet once, whatever dies.
  uint16_t counts[kPacketCounts] = {};
};
static_assert(sizeof(PacketMeta) == 64);

// Undo copy of a packet's first bytes; one for each packet of a burst, in memory that outlives the
// worker (dataplane/worker_slot.h) or, in tests, anywhere.
struct UndoEntry {
  uint64_t packet = 0;  // owner's handle
  uint32_t length = 0;  // bytes saved
  uint32_t reserved = 0;
  uint8_t bytes[kEditableBytes];
};

// A burst's undo copies. `count` grows only after the copy is complete.
struct UndoLog {
  uint32_t count = 0;
  uint32_t reserved[15] = {};
  UndoEntry entries[64];
};

// One packet as the chain runtime and the functions see it. The frame's buffer has room for
// kEditableBytes, however short the frame is: an answer may be longer than its question.
struct Packet {
  uint8_t* frame = nullptr;
  PacketMeta* meta = nullptr;
  uint64_t handle = 0;  // owner's handle, stored in the undo entry
};

}  // namespace flowkeep
