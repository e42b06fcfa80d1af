#include "nfs/firewall/tcp_tracker.h"

#include <algorithm>

namespace flowkeep {
namespace {

constexpr uint8_t kUnknownScale = 14;  // the largest there is (RFC 7323 section 2.3)
// Acknowledgements may be this old even where windows are small (van Rooij's MAXACKWINDOW).
constexpr uint32_t kOldestAckBytes = 66'000;
// A SYN's data need not be accepted with it (RFC 7413).
constexpr uint32_t kSynDataBytes = 1500;

// Sequence numbers wrap: RFC 9293 section 3.4.
bool before(uint32_t a, uint32_t b) {
  return static_cast<int32_t>(a - b) < 0;
}
bool after(uint32_t a, uint32_t b) {
  return before(b, a);
}
void raise(uint32_t& value, uint32_t to) {
  if (after(to, value)) value = to;
}

// The track from one segment's point of view.
class Connection {
 public:
  Connection(TcpTrack& track, bool from_initiator)
      : track_(track), sender_(from_initiator ? 0 : 1), receiver_(1 - sender_) {}

  bool from_initiator() const { return sender_ == 0; }
  bool sender_known() const { return track_.windows[sender_].bits != 0; }
  bool receiver_known() const { return track_.windows[receiver_].bits != 0; }
  TcpTrack::Side& sender() { return track_.sides[sender_]; }
  TcpTrack::Side& receiver() { return track_.sides[receiver_]; }
  uint32_t receiver_window() const { return track_.windows[receiver_].bytes(); }
  uint32_t sender_window() const { return track_.windows[sender_].bytes(); }

  void begin_sender(const TcpSegment& syn) {
    set_scale(syn.scale, syn.offers_scale);
    sender().end = syn.end();
    sender().max_end = syn.end();
    sender().max_ack = syn.has(kTcpAck) ? syn.acknowledgement : 0;
    track_.windows[sender_] = RoundedBytes::at_least(std::max<uint32_t>(syn.window, 1));
  }
  // Met in the middle of the connection. Each side's acknowledgements say what the other has sent.
  void learn_sender(const TcpSegment& segment) {
    const uint32_t window = std::max(offered_window(segment), 1U);
    sender().end = segment.end();
    sender().max_end = segment.end() + window;
    sender().max_ack = segment.acknowledgement;
    track_.windows[sender_] = RoundedBytes::at_least(window);
    if (!receiver_known()) return;
    if (!after(receiver().max_ack, sender().max_end)) raise(sender().end, receiver().max_ack);
    if (!after(sender().max_ack, receiver().max_end)) raise(receiver().end, sender().max_ack);
  }
  // The responder answers a later SYN than the one that it answered before.
  bool answers_later_syn(const TcpSegment& answer) const {
    return sender_ == 1 && sender_known() && answer.has(kTcpAck) && answer.acknowledgement != 0 &&
           answer.acknowledgement == track_.sides[receiver_].max_ack;
  }
  void take_later_syn() { receiver() = {receiver().max_ack, receiver().max_ack, 0}; }

  // A SYN's window is never scaled; others are if both sides offered it (RFC 7323 section 2.2).
  uint32_t offered_window(const TcpSegment& segment) const {
    if (segment.has(kTcpSyn)) return segment.window;
    const bool scaled = (track_.scaling & TcpTrack::kBothScale) == TcpTrack::kBothScale;
    const int shift = scaled ? track_.scales >> (4 * sender_) & 0x0f : 0;
    return static_cast<uint32_t>(segment.window) << shift;
  }
  void accept(const TcpSegment& segment) {
    const uint32_t window = offered_window(segment);
    if (window > sender_window()) track_.windows[sender_] = RoundedBytes::at_least(window);
    raise(sender().end, segment.end());
    if (!segment.has(kTcpAck)) return;
    raise(sender().max_ack, segment.acknowledgement);
    // With a closed window one byte may be sent, to probe it (RFC 9293 section 3.8.6.1).
    if (receiver_known()) raise(receiver().max_end, segment.acknowledgement + std::max(window, 1U));
  }

 private:
  void set_scale(uint8_t scale, bool offered) {
    const int shift = 4 * sender_;
    track_.scales = static_cast<uint8_t>((track_.scales & ~(0x0f << shift)) | scale << shift);
    const int bit = 1 << sender_;
    track_.scaling = static_cast<uint8_t>(offered ? track_.scaling | bit : track_.scaling & ~bit);
  }

  TcpTrack& track_;
  int sender_;
  int receiver_;
};

// Bounds I to IV, as far as what they need is known.
bool in_window(Connection& connection, const TcpSegment& segment) {
  const TcpTrack::Side& sender = connection.sender();
  const TcpTrack::Side& receiver = connection.receiver();
  if (after(segment.sequence, sender.max_end)) return false;
  if (!connection.receiver_known()) return true;
  if (before(segment.end(), sender.end - connection.receiver_window())) return false;
  if (!segment.has(kTcpAck)) return true;
  const uint32_t oldest = std::max(connection.sender_window(), kOldestAckBytes);
  return !after(segment.acknowledgement, receiver.end) &&
         !before(segment.acknowledgement, receiver.end - oldest);
}

// A reset before the connection stands answers a SYN: "acceptable if the ACK field acknowledges the
// SYN" (RFC 9293 section 3.10.7.3), or comes from the initiator itself.
bool resets_opening(Connection& connection, const TcpSegment& segment) {
  if (segment.has(kTcpAck) && connection.receiver_known())
    return segment.acknowledgement == connection.receiver().end;
  return connection.sender_known() && segment.sequence == connection.sender().end;
}

// RFC 5961 section 3.2: exactly the next one that the receiver expects. That is what the sender has
// sent, or, if some of it is lost, what the receiver has acknowledged.
bool resets_exactly(Connection& connection, const TcpSegment& segment) {
  return segment.sequence == connection.sender().end ||
         (connection.receiver_known() && segment.sequence == connection.receiver().max_ack);
}

bool has_valid_flags(const TcpSegment& segment) {
  if (segment.has(kTcpSyn)) return !segment.has(kTcpFin | kTcpRst);
  return segment.has(kTcpAck | kTcpRst) && !(segment.has(kTcpFin) && segment.has(kTcpRst));
}

bool may_begin_anew(const TcpSegment& segment, bool from_initiator, FlowPhase phase) {
  const bool first = segment.has(kTcpSyn) && !segment.has(kTcpAck);
  return first && from_initiator && (phase == FlowPhase::kOpening || phase == FlowPhase::kClosed);
}

// Does a SYN acknowledge the other one, if it acknowledges anything?
bool answers(Connection& connection, const TcpSegment& syn) {
  if (!syn.has(kTcpAck) || !connection.receiver_known()) return true;
  const uint32_t end = connection.receiver().end;
  return !after(syn.acknowledgement, end) && !before(syn.acknowledgement, end - kSynDataBytes);
}

TcpVerdict track_opening(Connection& connection, const TcpSegment& segment) {
  if (segment.has(kTcpSyn)) {  // the answer, or both open at once
    if (!answers(connection, segment)) {
      if (!connection.answers_later_syn(segment)) return TcpVerdict::kInvalid;
      connection.take_later_syn();
    }
    if (!connection.sender_known() || segment.end() != connection.sender().end)
      connection.begin_sender(segment);
    connection.accept(segment);
    return TcpVerdict::kBelongs;
  }
  // The responder may be of an older connection, and challenges the SYN (RFC 5961 section 4.2).
  if (!connection.from_initiator() && !connection.sender_known()) return TcpVerdict::kNoEffect;
  // Nobody has answered yet: what else comes cannot belong to the connection.
  if (!connection.sender_known() || !connection.receiver_known()) return TcpVerdict::kInvalid;
  if (!in_window(connection, segment)) return TcpVerdict::kInvalid;
  if (connection.from_initiator()) connection.sender().max_ack = segment.acknowledgement;
  connection.accept(segment);
  return TcpVerdict::kBelongs;
}

TcpVerdict track_standing(Connection& connection, const TcpSegment& segment) {
  if (segment.has(kTcpSyn)) return TcpVerdict::kNoEffect;  // RFC 5961 section 4.2
  if (!connection.sender_known()) connection.learn_sender(segment);
  if (!in_window(connection, segment)) return TcpVerdict::kInvalid;
  connection.accept(segment);
  return TcpVerdict::kBelongs;
}

TcpVerdict track_reset(Connection& connection, const TcpSegment& segment, FlowPhase phase) {
  if (phase == FlowPhase::kOpening) {
    if (resets_opening(connection, segment)) return TcpVerdict::kBelongs;
    // The initiator's answer to such a challenge.
    return connection.from_initiator() ? TcpVerdict::kNoEffect : TcpVerdict::kInvalid;
  }
  if (!connection.sender_known()) return TcpVerdict::kNoEffect;
  if (resets_exactly(connection, segment)) return TcpVerdict::kBelongs;
  return in_window(connection, segment) ? TcpVerdict::kNoEffect : TcpVerdict::kInvalid;
}

void forget(TcpTrack& track, uint16_t epoch) {
  track = {};
  track.scales = kUnknownScale << 4 | kUnknownScale;
  track.scaling = TcpTrack::kBothScale;
  track.epoch = epoch;
}

TcpVerdict begin_anew(TcpTrack& track, const TcpSegment& syn, FlowPhase phase, uint16_t epoch) {
  Connection connection(track, true);
  const bool begun = phase == FlowPhase::kOpening && track.epoch == epoch &&
                     (track.scaling & TcpTrack::kMidway) == 0 && connection.sender_known();
  if (begun && connection.sender().end == syn.end()) return TcpVerdict::kBelongs;  // once more
  if (begun && connection.receiver_known()) {
    connection.sender().max_ack = syn.end();
    return TcpVerdict::kNoEffect;
  }
  forget(track, epoch);
  connection.begin_sender(syn);
  return TcpVerdict::kBelongs;
}

TcpVerdict judge(TcpTrack& track, const TcpSegment& segment, bool from_initiator, FlowPhase phase,
                 uint16_t epoch) {
  if (!has_valid_flags(segment)) return TcpVerdict::kInvalid;
  if (may_begin_anew(segment, from_initiator, phase)) {
    return begin_anew(track, segment, phase, epoch);
  }
  if (track.epoch != epoch) {
    forget(track, epoch);
    track.scaling |= TcpTrack::kMidway;
  }
  if ((track.scaling & TcpTrack::kMidway) != 0 && phase == FlowPhase::kOpening) {
    phase = FlowPhase::kEstablished;
  }
  Connection connection(track, from_initiator);
  if (segment.has(kTcpRst)) return track_reset(connection, segment, phase);
  return phase == FlowPhase::kOpening ? track_opening(connection, segment)
                                      : track_standing(connection, segment);
}

}  // namespace

TcpVerdict track_tcp(TcpTrack& track, const TcpSegment& segment, bool from_initiator,
                     FlowPhase phase, uint16_t epoch, TcpStrictness strictness) {
  const TcpVerdict verdict = judge(track, segment, from_initiator, phase, epoch);
  return verdict == TcpVerdict::kInvalid && strictness == TcpStrictness::kLiberal
             ? TcpVerdict::kNoEffect
             : verdict;
}

}  // namespace flowkeep
