// TcpTracker: the bounds one by one, RFC 5961, and two endpoints that talk over a bad network, of
// which nothing may be refused that they really sent.
#include "nfs/firewall/tcp_tracker.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <deque>
#include <random>
#include <vector>

#include "nfs/flow_phase.h"

namespace flowkeep {
namespace {

constexpr uint16_t kEpoch = 7;
constexpr uint8_t kPsh = 0x08;

TcpSegment segment(uint8_t flags, uint32_t sequence, uint32_t acknowledgement = 0,
                   uint32_t payload = 0, uint16_t window = 1000) {
  TcpSegment made;
  made.flags = flags;
  made.sequence = sequence;
  made.acknowledgement = acknowledgement;
  made.payload_bytes = payload;
  made.window = window;
  return made;
}

// A tracked connection with the phase that the runtime would give it.
class Tracked {
 public:
  explicit Tracked(TcpStrictness strictness = TcpStrictness::kStrict) : strictness_(strictness) {}

  TcpVerdict see(bool from_initiator, const TcpSegment& segment) {
    const TcpVerdict verdict =
        track_tcp(track, segment, from_initiator, record_.phase, epoch, strictness_);
    // A burst that was not committed is run again.
    const TcpTrack once = track;
    EXPECT_EQ(track_tcp(track, segment, from_initiator, record_.phase, epoch, strictness_),
              verdict);
    EXPECT_EQ(std::memcmp(&once, &track, sizeof(track)), 0);
    if (verdict != TcpVerdict::kBelongs) return verdict;
    record_.inside_key.protocol = kProtocolTcp;
    record_.phase =
        next_phase(record_, segment.flags, from_initiator ? Side::kInside : Side::kOutside);
    return verdict;
  }
  TcpVerdict initiator(const TcpSegment& segment) { return see(true, segment); }
  TcpVerdict responder(const TcpSegment& segment) { return see(false, segment); }
  FlowPhase phase() const { return record_.phase; }

  // From 1000 and from 5000, with windows of 1000.
  void handshake() {
    EXPECT_EQ(initiator(segment(kTcpSyn, 999)), TcpVerdict::kBelongs);
    EXPECT_EQ(responder(segment(kTcpSyn | kTcpAck, 4999, 1000)), TcpVerdict::kBelongs);
    EXPECT_EQ(initiator(segment(kTcpAck, 1000, 5000)), TcpVerdict::kBelongs);
    EXPECT_EQ(phase(), FlowPhase::kEstablished);
  }

  TcpTrack track{};
  uint16_t epoch = kEpoch;

 private:
  static FlowRecord opening() {
    FlowRecord record{};
    record.phase = FlowPhase::kOpening;
    record.initiator = Side::kInside;
    return record;
  }
  TcpStrictness strictness_;
  FlowRecord record_ = opening();
};

TEST(TcpTracker, BoundsOfAnEstablishedConnection) {
  struct Case {
    const char* what;
    TcpSegment segment;
    TcpVerdict verdict;
  };
  const Case cases[] = {
      {"data", segment(kTcpAck, 1000, 5000, 100), TcpVerdict::kBelongs},
      {"data that fills the window", segment(kTcpAck, 1000, 5000, 1000), TcpVerdict::kBelongs},
      {"II: beyond the window", segment(kTcpAck, 2001, 5000, 1), TcpVerdict::kInvalid},
      {"I: old data within a window", segment(kTcpAck, 900, 5000, 50), TcpVerdict::kBelongs},
      {"I: data older than a window", segment(kTcpAck, 1000 - 1100, 5000, 50),
       TcpVerdict::kInvalid},
      {"III: acknowledges what was never sent", segment(kTcpAck, 1000, 5001), TcpVerdict::kInvalid},
      {"IV: acknowledges something ancient", segment(kTcpAck, 1000, 5000 - 66'001),
       TcpVerdict::kInvalid},
      {"IV: acknowledges something old", segment(kTcpAck, 1000, 5000 - 66'000),
       TcpVerdict::kBelongs},
      {"half a space away", segment(kTcpAck, 1000 + 0x80000000U, 5000), TcpVerdict::kInvalid},
  };
  for (const Case& test : cases) {
    Tracked connection;
    connection.handshake();
    EXPECT_EQ(connection.initiator(test.segment), test.verdict) << test.what;
  }
}

TEST(TcpTracker, NothingButAnAnswerMovesAnOpening) {
  Tracked connection;
  EXPECT_EQ(connection.initiator(segment(kTcpSyn, 999)), TcpVerdict::kBelongs);
  EXPECT_EQ(connection.initiator(segment(kTcpAck, 1000, 5000)), TcpVerdict::kInvalid)
      << "acknowledges what nobody has said";
  EXPECT_EQ(connection.responder(segment(kTcpSyn | kTcpAck, 4999, 2000)), TcpVerdict::kInvalid);
  EXPECT_EQ(connection.responder(segment(kTcpAck, 777, 888)), TcpVerdict::kNoEffect)
      << "an older connection's challenge";
  EXPECT_EQ(connection.initiator(segment(kTcpRst, 888)), TcpVerdict::kNoEffect) << "its answer";
  EXPECT_EQ(connection.phase(), FlowPhase::kOpening);
  EXPECT_EQ(connection.initiator(segment(kTcpSyn, 999)), TcpVerdict::kBelongs) << "sent once more";
  EXPECT_EQ(connection.responder(segment(kTcpSyn | kTcpAck, 4999, 1000)), TcpVerdict::kBelongs);
  EXPECT_EQ(connection.phase(), FlowPhase::kOpening) << "half open";
  EXPECT_EQ(connection.initiator(segment(kTcpAck, 1000, 4000)), TcpVerdict::kBelongs)
      << "old, but in the window";
  EXPECT_EQ(connection.initiator(segment(kTcpAck, 1000, 5001)), TcpVerdict::kInvalid);
}

TEST(TcpTracker, BothMayOpenAtOnce) {
  Tracked connection;
  EXPECT_EQ(connection.initiator(segment(kTcpSyn, 999)), TcpVerdict::kBelongs);
  EXPECT_EQ(connection.responder(segment(kTcpSyn, 4999)), TcpVerdict::kBelongs);
  EXPECT_EQ(connection.initiator(segment(kTcpSyn | kTcpAck, 999, 5000)), TcpVerdict::kBelongs);
  EXPECT_EQ(connection.responder(segment(kTcpSyn | kTcpAck, 4999, 1000)), TcpVerdict::kBelongs);
  EXPECT_EQ(connection.initiator(segment(kTcpAck, 1000, 5000)), TcpVerdict::kBelongs);
  EXPECT_EQ(connection.phase(), FlowPhase::kEstablished);
}

TEST(TcpTracker, ASynRefusedByAReset) {
  Tracked connection;
  EXPECT_EQ(connection.initiator(segment(kTcpSyn, 999)), TcpVerdict::kBelongs);
  EXPECT_EQ(connection.responder(segment(kTcpRst | kTcpAck, 0, 777)), TcpVerdict::kInvalid);
  EXPECT_EQ(connection.responder(segment(kTcpRst, 0)), TcpVerdict::kInvalid);
  EXPECT_EQ(connection.responder(segment(kTcpRst | kTcpAck, 0, 1000)), TcpVerdict::kBelongs);
  EXPECT_EQ(connection.phase(), FlowPhase::kClosed);
}

TEST(TcpTracker, ResetsAsRfc5961) {
  Tracked connection;
  connection.handshake();
  EXPECT_EQ(connection.responder(segment(kTcpRst, 5500)), TcpVerdict::kNoEffect) << "in the window";
  EXPECT_EQ(connection.responder(segment(kTcpRst, 9000)), TcpVerdict::kInvalid) << "outside of it";
  EXPECT_EQ(connection.phase(), FlowPhase::kEstablished);
  EXPECT_EQ(connection.responder(segment(kTcpRst, 5000)), TcpVerdict::kBelongs) << "exact";
  EXPECT_EQ(connection.phase(), FlowPhase::kClosed);
}

TEST(TcpTracker, AResetWhereDataIsUnderWay) {
  Tracked connection;
  connection.handshake();
  connection.initiator(segment(kTcpAck, 1000, 5000, 500));
  // Answers an acknowledgement of 1000 that it cannot place: sent before the data came.
  EXPECT_EQ(connection.initiator(segment(kTcpRst, 1000)), TcpVerdict::kBelongs);
}

TEST(TcpTracker, ASynDoesNotEndAConnection) {
  Tracked connection;
  connection.handshake();
  for (const uint32_t sequence : {1000U, 1500U, 0x70000000U}) {
    EXPECT_EQ(connection.initiator(segment(kTcpSyn, sequence)), TcpVerdict::kNoEffect);
    EXPECT_EQ(connection.responder(segment(kTcpSyn, sequence)), TcpVerdict::kNoEffect);
  }
  EXPECT_EQ(connection.phase(), FlowPhase::kEstablished);
  EXPECT_EQ(connection.responder(segment(kTcpAck, 5000, 1000)), TcpVerdict::kBelongs)
      << "the challenge";
}

TEST(TcpTracker, TheSamePortsAnewAfterTheEnd) {
  Tracked connection;
  connection.handshake();
  EXPECT_EQ(connection.initiator(segment(kTcpFin | kTcpAck, 1000, 5000)), TcpVerdict::kBelongs);
  EXPECT_EQ(connection.responder(segment(kTcpFin | kTcpAck, 5000, 1001)), TcpVerdict::kBelongs);
  EXPECT_EQ(connection.phase(), FlowPhase::kClosed);
  EXPECT_EQ(connection.initiator(segment(kTcpAck, 1001, 5001)), TcpVerdict::kBelongs);
  EXPECT_EQ(connection.initiator(segment(kTcpSyn, 0x30000000)), TcpVerdict::kBelongs);
  EXPECT_EQ(connection.phase(), FlowPhase::kOpening);
  EXPECT_EQ(connection.responder(segment(kTcpAck, 5001, 1001)), TcpVerdict::kNoEffect) << "the old";
}

TEST(TcpTracker, ScalesAreUsedOnlyIfBothOfferThem) {
  for (const bool both : {false, true}) {
    Tracked connection;
    TcpSegment syn = segment(kTcpSyn, 999);
    TcpSegment answer = segment(kTcpSyn | kTcpAck, 4999, 1000);
    syn.offers_scale = true;
    answer.offers_scale = both;
    answer.scale = both ? 7 : 0;
    connection.initiator(syn);
    connection.responder(answer);
    connection.initiator(segment(kTcpAck, 1000, 5000));
    connection.responder(segment(kTcpAck, 5000, 1000, 0, 1000));  // scaled: 128,000
    EXPECT_EQ(connection.initiator(segment(kTcpAck, 100'000, 5000, 10)),
              both ? TcpVerdict::kBelongs : TcpVerdict::kInvalid);
  }
}

TEST(TcpTracker, LiberalLetsEverythingPassWithoutAnEffect) {
  Tracked connection(TcpStrictness::kLiberal);
  connection.handshake();
  EXPECT_EQ(connection.responder(segment(kTcpRst, 9000)), TcpVerdict::kNoEffect);
  EXPECT_EQ(connection.initiator(segment(kTcpFin | kTcpAck, 50'000, 5000)), TcpVerdict::kNoEffect);
  EXPECT_EQ(connection.phase(), FlowPhase::kEstablished);
}

TEST(TcpTracker, LearnsAnewAfterARestart) {
  Tracked connection;
  connection.handshake();
  connection.epoch = kEpoch + 1;
  EXPECT_EQ(connection.initiator(segment(kTcpAck | kPsh, 777'000, 5000, 100)),
            TcpVerdict::kBelongs);
  EXPECT_EQ(connection.responder(segment(kTcpAck, 5000, 777'100)), TcpVerdict::kBelongs);
  EXPECT_EQ(connection.initiator(segment(kTcpAck, 777'100, 5000, 100)), TcpVerdict::kBelongs);
  EXPECT_EQ(connection.initiator(segment(kTcpAck, 0x60000000, 5000, 1)), TcpVerdict::kInvalid);
  EXPECT_EQ(connection.responder(segment(kTcpAck, 5000, 0x60000000)), TcpVerdict::kInvalid);
}

// After a restart of the node, met midway.
class Midway : public testing::Test {
 protected:
  Midway() {
    connection.handshake();
    connection.epoch = kEpoch + 1;
  }
  Tracked connection;
};

TEST_F(Midway, AKeepAliveTeachesTooLittleButItsAnswerTheRest) {
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(connection.initiator(segment(kTcpAck, 999, 5000)), TcpVerdict::kBelongs);
    EXPECT_EQ(connection.responder(segment(kTcpAck, 5000, 1000)), TcpVerdict::kBelongs);
  }
}

TEST_F(Midway, AKeepAliveAfterTheOtherSideHasSpoken) {
  EXPECT_EQ(connection.responder(segment(kTcpAck, 5000, 1000, 10)), TcpVerdict::kBelongs);
  EXPECT_EQ(connection.initiator(segment(kTcpAck, 999, 5010)), TcpVerdict::kBelongs);
  EXPECT_EQ(connection.responder(segment(kTcpAck, 5010, 1000)), TcpVerdict::kBelongs);
}

TEST_F(Midway, WhatWasRepeatedIsNotAllThatWasSent) {
  EXPECT_EQ(connection.initiator(segment(kTcpAck, 1000, 5000, 100)), TcpVerdict::kBelongs);
  EXPECT_EQ(connection.responder(segment(kTcpAck, 5000, 1900)), TcpVerdict::kBelongs)
      << "it has more, from before the restart";
  EXPECT_EQ(connection.initiator(segment(kTcpAck, 1900, 5000, 100)), TcpVerdict::kBelongs);
  EXPECT_EQ(connection.responder(segment(kTcpAck, 5000, 2001)), TcpVerdict::kInvalid);
}

TEST_F(Midway, ResetsAndSynsTeachNothing) {
  EXPECT_EQ(connection.responder(segment(kTcpRst, 0x70000000)), TcpVerdict::kNoEffect);
  EXPECT_EQ(connection.responder(segment(kTcpSyn | kTcpAck, 0x70000000, 7)), TcpVerdict::kNoEffect);
  EXPECT_EQ(connection.responder(segment(kTcpAck, 5000, 1000)), TcpVerdict::kBelongs);
  EXPECT_EQ(connection.initiator(segment(kTcpAck, 1000, 5000)), TcpVerdict::kBelongs);
}

TEST(TcpTracker, AHalfOpenConnectionIsLearntFromWhateverComesFirst) {
  const TcpSegment answer = segment(kTcpSyn | kTcpAck, 4999, 1000);
  const TcpSegment challenge = segment(kTcpAck, 5000, 1000);
  const TcpSegment reset = segment(kTcpRst, 5500);
  for (const TcpSegment& first : {answer, challenge, reset}) {
    Tracked connection;
    connection.initiator(segment(kTcpSyn, 999));
    connection.responder(answer);
    connection.epoch = kEpoch + 1;
    EXPECT_NE(connection.responder(first), TcpVerdict::kInvalid);
    EXPECT_EQ(connection.initiator(segment(kTcpAck, 1000, 5000)), TcpVerdict::kBelongs);
    EXPECT_EQ(connection.phase(), FlowPhase::kEstablished);
    EXPECT_EQ(connection.responder(segment(kTcpAck, 5000, 1000, 10)), TcpVerdict::kBelongs);
  }
}

TEST(TcpTracker, AHalfOpenConnectionBeginsAnewAfterARestart) {
  Tracked connection;
  connection.initiator(segment(kTcpSyn, 999));
  connection.epoch = kEpoch + 1;
  connection.responder(segment(kTcpAck, 7, 8));
  EXPECT_EQ(connection.initiator(segment(kTcpSyn, 999)), TcpVerdict::kBelongs);
  EXPECT_EQ(connection.responder(segment(kTcpSyn | kTcpAck, 4999, 1001)), TcpVerdict::kInvalid);
  EXPECT_EQ(connection.responder(segment(kTcpSyn | kTcpAck, 4999, 1000)), TcpVerdict::kBelongs);
}

TEST(TcpTracker, AForgedSynDoesNotUndoAnAnswer) {
  Tracked connection;
  connection.initiator(segment(kTcpSyn, 999));
  connection.responder(segment(kTcpSyn | kTcpAck, 4999, 1000));
  EXPECT_EQ(connection.initiator(segment(kTcpSyn, 0x70000000)), TcpVerdict::kNoEffect);
  EXPECT_EQ(connection.initiator(segment(kTcpAck, 1000, 5000)), TcpVerdict::kBelongs);
  EXPECT_EQ(connection.phase(), FlowPhase::kEstablished);
  EXPECT_EQ(connection.responder(segment(kTcpRst, 5000)), TcpVerdict::kBelongs);
}

TEST(TcpTracker, ALaterSynThatIsAnsweredIsTheConnections) {
  Tracked connection;
  connection.initiator(segment(kTcpSyn, 999));
  connection.responder(segment(kTcpSyn | kTcpAck, 4999, 1000));
  EXPECT_EQ(connection.initiator(segment(kTcpSyn, 0x90000000)), TcpVerdict::kNoEffect);
  EXPECT_EQ(connection.responder(segment(kTcpSyn | kTcpAck, 0xb0000000, 0x90000002)),
            TcpVerdict::kInvalid);
  EXPECT_EQ(connection.responder(segment(kTcpSyn | kTcpAck, 0xb0000000, 0x90000001)),
            TcpVerdict::kBelongs);
  EXPECT_EQ(connection.initiator(segment(kTcpAck, 1000, 5000)), TcpVerdict::kInvalid);
  EXPECT_EQ(connection.initiator(segment(kTcpAck, 0x90000001, 0xb0000001)), TcpVerdict::kBelongs);
  EXPECT_EQ(connection.phase(), FlowPhase::kEstablished);
  EXPECT_EQ(connection.responder(segment(kTcpAck, 0xb0000001, 0x90000001, 9)),
            TcpVerdict::kBelongs);
}

TEST(TcpTracker, FlagsThatNoConnectionHas) {
  for (const int flags : {0, int{kPsh}, int{kTcpFin}, kTcpSyn | kTcpFin, kTcpSyn | kTcpRst,
                          kTcpFin | kTcpRst, kTcpSyn | kTcpFin | kTcpAck}) {
    Tracked connection;
    connection.handshake();
    EXPECT_EQ(connection.initiator(segment(static_cast<uint8_t>(flags), 1000, 5000)),
              TcpVerdict::kInvalid)
        << flags;
    EXPECT_EQ(connection.phase(), FlowPhase::kEstablished) << flags;
  }
}

TEST(RoundedBytes, IsNeverLessAndHardlyMore) {
  for (uint64_t bytes = 0; bytes <= uint64_t{0xffff} << 14; bytes += 1 + bytes / 300) {
    const uint32_t rounded = RoundedBytes::at_least(static_cast<uint32_t>(bytes)).bytes();
    ASSERT_GE(rounded, bytes);
    ASSERT_LE(rounded, bytes + bytes / 1024);
  }
}

// ---- Two endpoints over a network that loses, repeats and reorders.

class Endpoint {
 public:
  Endpoint(std::mt19937& random, uint32_t first) : random_(random), next_(first), acked_(first) {}

  TcpSegment syn(bool answer) {
    TcpSegment made = segment(kTcpSyn, next_ - 1, received_, 0, window());
    made.offers_scale = true;
    made.scale = scale_;
    if (answer) made.flags |= kTcpAck;
    return made;
  }
  // New data, data once more, or an acknowledgement alone; never beyond what the other side allows.
  TcpSegment send() {
    const uint32_t choice = random_() % 4;
    uint32_t from = next_;
    if (choice == 0 && next_ != acked_)
      from = acked_ + static_cast<uint32_t>(random_() % (next_ - acked_));
    const uint32_t room = allowed_ - from;
    uint32_t bytes = choice == 1 ? 0 : static_cast<uint32_t>(random_() % 1461);
    if (static_cast<int32_t>(room) <= 0) bytes = 0;
    bytes = std::min(bytes, static_cast<int32_t>(room) > 0 ? room : 0);
    if (from + bytes - next_ < 0x80000000U) next_ = from + bytes;
    return segment(kTcpAck, from, received_, bytes, scaled_window());
  }
  void receive(const TcpSegment& segment, uint8_t peer_scale) {
    if (segment.has(kTcpAck)) {
      if (static_cast<int32_t>(segment.acknowledgement - acked_) > 0)
        acked_ = segment.acknowledgement;
      const uint32_t window = static_cast<uint32_t>(segment.window)
                              << (segment.has(kTcpSyn) ? 0 : peer_scale);
      if (static_cast<int32_t>(segment.acknowledgement + window - allowed_) > 0 || !open_)
        allowed_ = segment.acknowledgement + window;
    }
    if (!open_) received_ = segment.end();
    open_ = true;
    const bool in_order = static_cast<int32_t>(segment.sequence - received_) <= 0;
    if (in_order && static_cast<int32_t>(segment.end() - received_) > 0) received_ = segment.end();
  }
  uint8_t scale() const { return scale_; }

 private:
  uint16_t window() const { return 20'000; }
  uint16_t scaled_window() { return static_cast<uint16_t>(2000 + random_() % 500); }

  std::mt19937& random_;
  uint8_t scale_ = static_cast<uint8_t>(random_() % 8);
  uint32_t next_, acked_, allowed_ = 0, received_ = 0;
  bool open_ = false;
};

TEST(TcpTracker, RefusesNothingThatEndpointsReallySend) {
  const uint32_t seed = std::random_device{}();
  std::printf("seed %u\n", seed);
  std::mt19937 random(seed);
  for (int round = 0; round < 300; ++round) {
    const uint32_t firsts[2] = {static_cast<uint32_t>(random()), 0xffffff00U};
    Endpoint ends[2] = {Endpoint(random, firsts[0]), Endpoint(random, firsts[1])};
    Tracked connection;
    const TcpSegment syn = ends[0].syn(false);
    ASSERT_EQ(connection.initiator(syn), TcpVerdict::kBelongs);
    ends[1].receive(syn, 0);
    const TcpSegment answer = ends[1].syn(true);
    ASSERT_EQ(connection.responder(answer), TcpVerdict::kBelongs);
    ends[0].receive(answer, 0);
    std::deque<std::pair<int, TcpSegment>> network;
    for (int step = 0; step < 400; ++step) {
      const int from = static_cast<int>(random() % 2);
      if (step == 0) {
        network.emplace_back(0, segment(kTcpAck, firsts[0], firsts[1], 0, 2000));
      } else {
        network.emplace_back(from, ends[from].send());
      }
      if (step > 0 && random() % 3 == 0 && network.size() < 20) continue;
      // One of the first few, so that the order changes a little; now and then it stays for a copy.
      const size_t which = step == 0 ? 0 : random() % std::min<size_t>(network.size(), 4);
      const auto [sender, sent] = network[which];
      if (random() % 8 != 0) network.erase(network.begin() + static_cast<std::ptrdiff_t>(which));
      ASSERT_EQ(connection.see(sender == 0, sent), TcpVerdict::kBelongs)
          << "round " << round << ", step " << step << ", from " << sender << ": " << sent.sequence
          << " + " << sent.payload_bytes << ", acknowledges " << sent.acknowledgement;
      if (random() % 10 != 0) ends[1 - sender].receive(sent, ends[sender].scale());
    }
    // What somebody guesses does not get in: windows are below 2^19 in a space of 2^32.
    int guessed = 0;
    for (int guess = 0; guess < 1000; ++guess) {
      const TcpSegment blind =
          segment(kTcpAck, static_cast<uint32_t>(random()), static_cast<uint32_t>(random()), 10);
      TcpTrack copy = connection.track;
      guessed += track_tcp(copy, blind, guess % 2 == 0, FlowPhase::kEstablished, kEpoch,
                           TcpStrictness::kStrict) == TcpVerdict::kBelongs
                     ? 1
                     : 0;
    }
    ASSERT_LE(guessed, 2);
  }
}

}  // namespace
}  // namespace flowkeep
