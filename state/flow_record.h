// FlowRecord: everything that a chain's functions must not lose about one flow: 192 bytes, three
// cache lines of the state pool. Described byte by byte in docs/state-format.md.
//
// Packets of IPv4 need the first two lines only. The third has what IPv6 adds to the keys, and soft
// state of functions, which lies there alone: read it with FlowTable::soft(), not from a record
// that this burst has staged.
#pragma once

#include <cstddef>
#include <cstdint>

#include "state/flow_key.h"

namespace flowkeep {

// Progress of a flow as far as its time-out depends on it. Kept by the chain runtime for all
// functions (RFC 5382 REQ-5, RFC 4787 REQ-5, RFC 5508 REQ-2 give the time-outs).
enum class FlowPhase : uint8_t {
  kFree = 0,            // not a flow: the record is on its bucket's free list
  kOpening = 1,         // TCP: SYN seen, no answer yet. Other protocols: no answer yet
  kEstablished = 2,     // packets seen from both sides
  kClosingInside = 3,   // TCP FIN seen from the inside only
  kClosingOutside = 4,  // TCP FIN seen from the outside only
  kClosed = 5,          // TCP FIN from both sides, or RST
  kKeyed = 6,           // not a flow: state under a key of its own (state/index_keys.h)
};

inline constexpr size_t kHardStateBytes = 64;
inline constexpr size_t kSoftStateBytes = 32;

struct alignas(64) FlowRecord {
  // Line 0.
  FlowKey inside_key;    // +0  as seen by the inside port
  FlowKey outside_key;   // +16 as seen by the outside port (addresses after translation)
  FlowPhase phase;       // +32
  Side initiator;        // +33 side that the flow's first packet came from
  uint16_t bucket;       // +34 bucket within the chain
  uint32_t checksum;     // +36 state/record_checksum.h; set by the commit
  uint32_t revision;     // +40 revision of the chain that opened or last accepted the flow
  uint32_t opened_s;     // +44 Unix time, seconds
  union {                // +48
    uint32_t next_free;  // while free: next record of the bucket's free list (0 ends it)
    uint32_t users;      // while in use: state/index_keys.h
  };
  uint32_t extent;       // +52 variable-size state; 0: none
  uint32_t last_seen_s;  // +56 Unix time, seconds. Soft: stored in place, never logged
  // +60 odd while the record changes in place. Soft: for readers of other processes
  uint32_t version;
  // Line 1: the functions' hard state, each at the offset that the revision's layout gives it.
  uint8_t hard[kHardStateBytes];  // +64
  // Line 2.
  // +128 of the inside key; the outside key's are the same, reversed. IPv4: anything
  WideAddresses addresses;
  // +160 the functions' soft state. Soft: stored in place, never logged, may be anything after a
  // power failure
  uint8_t soft[kSoftStateBytes];

  bool is_wide() const { return inside_key.family == Family::kIpv6; }
};
static_assert(sizeof(FlowRecord) == 192);
static_assert(offsetof(FlowRecord, phase) == 32 && offsetof(FlowRecord, next_free) == 48);
static_assert(offsetof(FlowRecord, bucket) == 34 && offsetof(FlowRecord, checksum) == 36);
static_assert(offsetof(FlowRecord, extent) == 52);
static_assert(offsetof(FlowRecord, last_seen_s) == 56 && offsetof(FlowRecord, hard) == 64);
static_assert(offsetof(FlowRecord, addresses) == 128 && offsetof(FlowRecord, soft) == 160);

}  // namespace flowkeep
