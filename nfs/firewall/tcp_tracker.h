// TcpTracker: does a segment belong to its connection, as far as somebody in the middle can tell?
//
// The bounds are those of Guido van Rooij, "Real Stateful TCP Packet Filtering in IP Filter"
// (2001), which Linux's connection tracking checks too (tcp_in_window). Of each side, A, sending to
// B, it is known what A has sent (end), what B lets it send at most (max_end), and what it has
// acknowledged (max_ack). A segment from A belongs to the connection if
//
//   I    it ends not more than B's largest window before what A has sent: no old data
//   II   it begins not beyond max_end: no data that B has not asked for
//   III  it acknowledges nothing that B has not sent
//   IV   nor something so old that it cannot be of this window
//
// Resets and SYNs of a connection that stands follow RFC 5961: a reset ends it only if its sequence
// number is exactly the next one; one that is merely inside the window passes, and the receiver
// challenges it, without an effect here. So does a SYN.
//
// A SYN of the initiator begins the connection anew while nobody has answered and when it is over.
// Once answered, another SYN passes without an effect: it may be forged. If the responder answers
// it after all, because it has forgotten the first one, the connection is the later SYN's.
//
// Whatever is neither SYN nor reset must acknowledge something (RFC 9293 section 3.10.7.4), and a
// SYN is neither a FIN nor a reset: other combinations of flags belong to no connection.
//
// What is known lies in the flow's soft state: it survives the worker, not the node. A connection
// that is met without it, midway, is learnt anew from its next segments, also one that was half
// open, with the largest window scale, because scales are told only once. (Linux gives up all
// bounds of such connections.) A side is learnt from its first segment, which may be old, or a
// keep-alive with the number before the next one; so what the other side acknowledges counts as
// sent. Resets and SYNs teach nothing.
//
// Thread rule: pure functions of their arguments.
#pragma once

#include <cstdint>

#include "nfs/firewall/tcp_segment.h"
#include "state/flow_record.h"

namespace flowkeep {

// A number of up to 31 bits in 16, rounded up by less than 1/1024: the upper 11 bits of it and how
// far they are shifted.
struct RoundedBytes {
  uint16_t bits = 0;

  static RoundedBytes at_least(uint32_t bytes) {
    uint32_t shift = 0;
    while ((bytes >> shift) >= kMantissas) ++shift;
    const uint32_t mantissa = (bytes + (uint32_t{1} << shift) - 1) >> shift;
    if (mantissa == kMantissas) return of(mantissa >> 1, shift + 1);
    return of(mantissa, shift);
  }
  uint32_t bytes() const { return static_cast<uint32_t>(bits & (kMantissas - 1)) << (bits >> 11); }

 private:
  static constexpr uint32_t kMantissas = 2048;
  static RoundedBytes of(uint32_t mantissa, uint32_t shift) {
    return {static_cast<uint16_t>(shift << 11 | mantissa)};
  }
};

// Soft state of a flow: 32 bytes, any content of which is valid, if only for another epoch.
struct TcpTrack {
  struct Side {
    uint32_t end;      // sequence number after the last byte that this side has sent
    uint32_t max_end;  // up to which the other side lets it send
    uint32_t max_ack;  // what it has acknowledged of the other side's. Of the initiator before it
                       // has: end of a later SYN than the one that was answered, or 0
  };
  Side sides[2];            // the initiator's, the responder's
  RoundedBytes windows[2];  // largest that each has offered, scaled; 0: nothing is known of it
  uint8_t scales;           // four bits each, the initiator's below
  uint8_t scaling;          // bit for each side that offered it in its SYN; kMidway
  uint16_t epoch;           // of the node's life that wrote it
  static constexpr uint8_t kBothScale = 3, kMidway = 4;
};
static_assert(sizeof(TcpTrack) == 32);

enum class TcpStrictness : uint8_t {
  kStrict,   // what does not belong to the connection is dropped
  kLiberal,  // it passes, without an effect
};

enum class TcpVerdict : uint8_t {
  kBelongs,   // it passes and moves the connection on
  kNoEffect,  // it passes; the connection stays as it is
  kInvalid,   // it is dropped; the connection stays as it is
};

// One segment of a flow whose phase, before it, is `phase`. Looking at the same segment twice
// changes nothing the second time, so a burst may be run again.
TcpVerdict track_tcp(TcpTrack& track, const TcpSegment& segment, bool from_initiator,
                     FlowPhase phase, uint16_t epoch, TcpStrictness strictness);

}  // namespace flowkeep
