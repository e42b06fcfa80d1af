// What the switch found out about a packet, and the view that functions get of it.
//
// A packet is parsed once, by the switch, with every bound checked (nfs/parse.h). The result
// travels with the packet as PacketMeta; functions trust its offsets and do not parse again.
#pragma once

#include <cstddef>
#include <cstdint>

#include "nfs/drop_reason.h"
#include "state/flow_key.h"
#include "state/flow_record.h"

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
// Counters of all functions of a chain.
inline constexpr size_t kMaxChainCounters = 16'384;

inline constexpr size_t kMaxVlanTags = 2;                        // 802.1Q, and 802.1ad around it
inline constexpr size_t kUntaggedBytes = 14, kVlanTagBytes = 4;  // of an Ethernet header

// In the packet's private area; packets of IPv4 need the first cache line only. All offsets from
// the start of the frame.
struct alignas(64) PacketMeta {
  FlowKey key;          // of an ICMP error: the key of the flow it is about, as that flow's packets
                        // from the error's side look (the quoted packet's key, reversed)
  uint64_t hash = 0;    // hash_key(key)
  uint32_t bucket = 0;  // within the chain
  uint16_t chain = 0;
  uint16_t length = 0;           // of the frame, bytes, without padding beyond the IP total length
  uint16_t l3_offset = 0;        // so also the length of the Ethernet header with its tags
  uint16_t l4_offset = 0;        // of a fragment: of what it carries
  uint16_t inner_l3_offset = 0;  // ICMP error: the quoted IP header; otherwise 0
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
  // Second cache line: of IPv6, and of frames with VLAN tags.
  WideAddresses addresses;              // IPv6: of `key`; otherwise as they were
  uint16_t fragment_header_offset = 0;  // IPv6: 0: there is none. Otherwise as it was
  bool is_routed = false;  // IPv6: a routing header has still to change the destination
  uint8_t reserved = 0;
  // Of vlan_tags() tags, the outermost first; host byte order.
  uint16_t vlan_tci[kMaxVlanTags] = {};
  uint8_t more[24] = {};

  size_t vlan_tags() const { return (l3_offset - kUntaggedBytes) / kVlanTagBytes; }
  // Of what lies at l4_offset; that in `key` may be a quoted packet's.
  uint8_t protocol() const {
    if (inner_l3_offset == 0) return key.protocol;
    return is_wide() ? kProtocolIcmpv6 : kProtocolIcmp;
  }
  bool is_wide() const { return key.family == Family::kIpv6; }
  // For FlowTable: null for IPv4.
  const WideAddresses* wide_addresses() const { return is_wide() ? &addresses : nullptr; }
};
static_assert(sizeof(PacketMeta) == 128 && offsetof(PacketMeta, addresses) == 64);

// Undo copy of a packet's first bytes; one for each packet of a burst, in memory that outlives the
// worker (dataplane/worker_slot.h) or, in tests, anywhere.
struct UndoEntry {
  uint64_t packet = 0;  // owner's handle
  uint32_t length = 0;  // bytes saved
  uint32_t reserved = 0;
  uint8_t bytes[kEditableBytes];
};

// Undo copy of a flow's soft state.
struct SoftUndo {
  uint32_t record = 0;  // RecordId
  uint32_t reserved = 0;
  uint8_t bytes[kSoftStateBytes];
};

// A burst's undo copies. A count grows only after the copy is complete.
struct UndoLog {
  uint32_t count = 0;
  uint32_t soft_count = 0;
  uint32_t reserved[14] = {};
  UndoEntry entries[64];
  SoftUndo soft[128];  // a packet that opens a flow clears what was there, and stores its own

  // The burst is committed, or undone.
  void forget() {
    __atomic_store_n(&count, 0, __ATOMIC_RELEASE);
    __atomic_store_n(&soft_count, 0, __ATOMIC_RELEASE);
  }
};

// One packet as the chain runtime and the functions see it. The frame's buffer has room for
// kEditableBytes, however short the frame is: an answer may be longer than its question.
struct Packet {
  uint8_t* frame = nullptr;
  PacketMeta* meta = nullptr;
  uint64_t handle = 0;  // owner's handle, stored in the undo entry
};

}  // namespace flowkeep
