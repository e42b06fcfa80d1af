// Connection tracking in a chain: what passes, what a flow's phase is then, how long it lives, and
// what a flood of SYNs does. The bounds themselves: tcp_tracker_test.cc.
#include <gtest/gtest.h>

#include <cstdio>
#include <random>

#include "nfs/chain_harness.h"
#include "nfs/firewall/half_open.h"

namespace flowkeep {
namespace {

constexpr char kInside[] = "10.0.0.2", kOutside[] = "192.0.2.1";
constexpr char kAcceptAll[] = R"("rules":[{"name":"all","action":"accept"}])";

ChainSpec firewall(const std::string& config, const Timeouts& timeouts = {}) {
  return {"test", 1, {{"firewall", "{" + config + "}"}}, timeouts};
}

// From the inside with sequence numbers from 1000, answered from 5000.
PacketBuilder out(uint8_t flags, uint32_t sequence, uint32_t acknowledgement = 0) {
  return PacketBuilder::tcp(kInside, 4000, kOutside, 80, flags).numbers(sequence, acknowledgement);
}
PacketBuilder in(uint8_t flags, uint32_t sequence, uint32_t acknowledgement = 0) {
  return PacketBuilder::tcp(kOutside, 80, kInside, 4000, flags).numbers(sequence, acknowledgement);
}

class Tracking : public testing::TestWithParam<Crash> {
 protected:
  void start(const std::string& config = kAcceptAll, const Timeouts& timeouts = {}) {
    harness_.reset();
    directory_.emplace();
    harness_.emplace(firewall(config, timeouts), *directory_, GetParam());
  }
  std::string_view outgoing(const PacketBuilder& packet) {
    return drop_reason_name(harness_->send(Side::kInside, packet.build()).reason);
  }
  std::string_view incoming(const PacketBuilder& packet) {
    return drop_reason_name(harness_->send(Side::kOutside, packet.build()).reason);
  }
  FlowPhase phase() {
    const auto flow = harness_->flow_of(Side::kInside, out(0, 0).build());
    return flow ? flow->phase : FlowPhase::kFree;
  }
  void handshake() {
    EXPECT_EQ(outgoing(out(kTcpSyn, 999)), "none");
    EXPECT_EQ(incoming(in(kTcpSyn | kTcpAck, 4999, 1000)), "none");
    EXPECT_EQ(phase(), FlowPhase::kOpening) << "half open";
    EXPECT_EQ(outgoing(out(kTcpAck, 1000, 5000)), "none");
    EXPECT_EQ(phase(), FlowPhase::kEstablished);
  }

  std::optional<PoolDirectory> directory_;
  std::optional<ChainHarness> harness_;
};
INSTANTIATE_TEST_SUITE_P(Crashes, Tracking, testing::ValuesIn(kEveryMode));

TEST_P(Tracking, AConnectionFromBeginToEnd) {
  start();
  handshake();
  EXPECT_EQ(outgoing(out(kTcpAck, 1000, 5000).payload(500)), "none");
  EXPECT_EQ(incoming(in(kTcpAck, 5000, 1500).payload(100)), "none");
  EXPECT_EQ(outgoing(out(kTcpFin | kTcpAck, 1500, 5100)), "none");
  EXPECT_EQ(phase(), FlowPhase::kClosingInside);
  EXPECT_EQ(incoming(in(kTcpFin | kTcpAck, 5100, 1501)), "none");
  EXPECT_EQ(outgoing(out(kTcpAck, 1501, 5101)), "none");
  EXPECT_EQ(phase(), FlowPhase::kClosed);
}

TEST_P(Tracking, WhatDoesNotBelongToTheConnectionDoesNotPass) {
  start();
  handshake();
  EXPECT_EQ(incoming(in(kTcpAck, 5000 + 200'000, 1000)), "tcp_out_of_window");
  EXPECT_EQ(incoming(in(kTcpAck, 5000, 1001)), "tcp_out_of_window");
  EXPECT_EQ(incoming(in(kTcpFin | kTcpAck, 900'000, 1000)), "tcp_out_of_window");
  EXPECT_EQ(phase(), FlowPhase::kEstablished);
}

// Judged again, it must not profit from what came after it.
TEST_P(Tracking, ABurstThatDidNotCommitLeavesNoTrace) {
  start();
  handshake();
  for (const uint32_t sent : {0u, 200u}) {  // in one of the two bursts the worker dies
    const std::vector<Departure> departures =
        harness_->burst({{Side::kOutside, in(kTcpAck, 5000, 1000 + sent + 100).build()},
                         {Side::kInside, out(kTcpAck, 1000 + sent, 5000).payload(200).build()}});
    EXPECT_EQ(drop_reason_name(departures[0].reason), "tcp_out_of_window") << "not sent yet";
    EXPECT_EQ(drop_reason_name(departures[1].reason), "none");
  }
}

TEST_P(Tracking, ResetsAndSynsEndNothingUnlessExact) {
  start();
  handshake();
  EXPECT_EQ(incoming(in(kTcpRst, 5000 + 200'000)), "tcp_out_of_window");
  EXPECT_EQ(incoming(in(kTcpRst, 5010)), "none") << "the receiver challenges it";
  EXPECT_EQ(outgoing(out(kTcpSyn, 77'000)), "none") << "so does it with this";
  EXPECT_EQ(phase(), FlowPhase::kEstablished);
  EXPECT_EQ(incoming(in(kTcpRst, 5000)), "none");
  EXPECT_EQ(phase(), FlowPhase::kClosed);
}

TEST_P(Tracking, Liberal) {
  start(std::string(kAcceptAll) + R"(,"tcp_tracking":"liberal")");
  handshake();
  EXPECT_EQ(incoming(in(kTcpRst, 300'000)), "none");
  EXPECT_EQ(phase(), FlowPhase::kEstablished);
}

TEST_P(Tracking, Off) {
  start(std::string(kAcceptAll) + R"(,"tcp_tracking":"off")");
  handshake();
  EXPECT_EQ(incoming(in(kTcpRst, 300'000)), "none");
  EXPECT_EQ(phase(), FlowPhase::kClosed);
}

TEST_P(Tracking, AConnectionThatOutlivedItsNodeIsLearntAnew) {
  start();
  handshake();
  harness_->resumed_s = harness_->now_s += 10;
  harness_->apply(firewall(kAcceptAll));
  EXPECT_EQ(outgoing(out(kTcpAck, 700'000, 5000).payload(10)), "none");
  EXPECT_EQ(incoming(in(kTcpAck, 5000, 700'010)), "none");
  EXPECT_EQ(incoming(in(kTcpAck, 5000, 0x70000000)), "tcp_out_of_window");
  EXPECT_EQ(phase(), FlowPhase::kEstablished);
}

TEST_P(Tracking, TimeOutsByState) {
  Timeouts timeouts;
  timeouts.tcp_opening_s = 30, timeouts.tcp_established_s = 1000, timeouts.tcp_closed_s = 10;
  timeouts.udp_opening_s = 20, timeouts.udp_s = 100;
  start(kAcceptAll, timeouts);
  const auto gone_after = [this](uint32_t seconds) {
    harness_->now_s += seconds;
    return harness_->sweep_all() > 0;
  };
  outgoing(out(kTcpSyn, 999));
  EXPECT_FALSE(gone_after(25));
  outgoing(out(kTcpSyn, 999));
  EXPECT_TRUE(gone_after(6)) << "nothing keeps a half-open connection alive";
  handshake();
  EXPECT_FALSE(gone_after(1000));
  EXPECT_EQ(outgoing(out(kTcpAck, 1000, 5000)), "none");
  EXPECT_FALSE(gone_after(999));
  EXPECT_EQ(outgoing(out(kTcpRst, 1000)), "none");
  EXPECT_FALSE(gone_after(10));
  EXPECT_TRUE(gone_after(1));
  const auto question = PacketBuilder::udp(kInside, 5000, kOutside, 53);
  outgoing(question);
  EXPECT_TRUE(gone_after(21)) << "unanswered";
  outgoing(question);
  incoming(PacketBuilder::udp(kOutside, 53, kInside, 5000));
  EXPECT_FALSE(gone_after(100));
  EXPECT_TRUE(gone_after(1));
}

TEST(ChainTimeouts, ATranslatingChainKeepsWhatTheRfcsAskFor) {
  const auto refusal = [](const Timeouts& timeouts, bool translates) -> std::string {
    ChainSpec spec = firewall("", timeouts);
    if (translates)
      spec.functions.push_back({"nat44", R"({"external_addresses":["203.0.113.1"]})"});
    const auto checked = validate_chain(spec);
    return checked.ok() ? "" : checked.error().text();
  };
  Timeouts timeouts;
  EXPECT_EQ(refusal(timeouts, true), "");
  timeouts.tcp_established_s = 3600;
  EXPECT_EQ(refusal(timeouts, false), "");
  EXPECT_NE(refusal(timeouts, true).find("spec.timeouts.tcp_established_s: 3600 is not accepted"),
            std::string::npos)
      << refusal(timeouts, true);
  timeouts.udp_s = 0;
  EXPECT_NE(refusal(timeouts, false).find("spec.timeouts.udp_s"), std::string::npos);
}

// ---- SYN flood. Soft state, so not with crashes.

class Flood : public testing::Test {
 protected:
  static constexpr uint32_t kLimit = 100;
  static constexpr char kServer[] = "10.0.0.2";
  Flood() : harness_(firewall(limits(), short_openings()), directory_) {}
  static std::string limits() {
    return std::string(kAcceptAll) + R"(,"half_open":{"limit":100,"per_destination":60})";
  }
  static Timeouts short_openings() {
    Timeouts timeouts;
    timeouts.tcp_opening_s = 8;
    return timeouts;
  }
  // Client n from the outside, and what a server answers it.
  static uint16_t port(uint32_t n) { return static_cast<uint16_t>(1024 + n); }
  DropReason ask(uint32_t n, const char* to, uint8_t flags, uint32_t sequence,
                 uint32_t acknowledgement = 0) {
    const auto packet = PacketBuilder::tcp("198.51.100.1", port(n), to, 80, flags)
                            .numbers(sequence, acknowledgement);
    return harness_.send(Side::kOutside, packet.build()).reason;
  }
  DropReason answer(uint32_t n, const char* from, uint8_t flags, uint32_t sequence,
                    uint32_t acknowledgement) {
    const auto packet = PacketBuilder::tcp(from, 80, "198.51.100.1", port(n), flags)
                            .numbers(sequence, acknowledgement);
    return harness_.send(Side::kInside, packet.build()).reason;
  }
  DropReason syn(uint32_t n, const char* to) { return ask(n, to, kTcpSyn, 999); }
  bool connect(uint32_t n, const char* to) {
    return syn(n, to) == DropReason::kNone &&
           answer(n, to, kTcpSyn | kTcpAck, 4999, 1000) == DropReason::kNone &&
           ask(n, to, kTcpAck, 1000, 5000) == DropReason::kNone;
  }
  bool talk(uint32_t n, const char* to) {
    return ask(n, to, kTcpAck, 1000, 5000) == DropReason::kNone;
  }

  PoolDirectory directory_;
  ChainHarness harness_;
};

TEST_F(Flood, FindsItsEndAndNoEstablishedConnectionSuffers) {
  constexpr uint32_t kConnections = 1000;
  for (uint32_t n = 0; n < kConnections; ++n) ASSERT_TRUE(connect(n, kServer)) << n;
  std::map<DropReason, uint32_t> seen;
  for (uint32_t n = 0; n < 10 * kLimit; ++n) {
    ++seen[syn(10'000 + n, n % 2 == 0 ? kServer : "10.0.0.3")];
    ASSERT_TRUE(talk(n % kConnections, kServer));
  }
  EXPECT_EQ(seen[DropReason::kNone], kLimit);
  EXPECT_EQ(seen[DropReason::kHalfOpenLimit], 9 * kLimit);
  EXPECT_EQ(harness_.flows(), kConnections + kLimit);
  for (uint32_t n = 0; n < kConnections; ++n) ASSERT_TRUE(talk(n, kServer)) << n;
  harness_.now_s += 10;
  EXPECT_TRUE(connect(50'000, kServer)) << "it recovers by itself";
}

TEST_F(Flood, OneDestinationLeavesRoomForTheOthers) {
  std::map<DropReason, uint32_t> seen;
  for (uint32_t n = 0; n < 100; ++n) ++seen[syn(n, kServer)];
  EXPECT_EQ(seen[DropReason::kNone], 60U);
  EXPECT_EQ(seen[DropReason::kHalfOpenDestinationLimit], 40U);
  EXPECT_TRUE(connect(1000, "10.0.0.9"));
}

TEST_F(Flood, ConnectionsThatStandOrAreRefusedMakeRoom) {
  for (uint32_t n = 0; n < 300; ++n) {
    ASSERT_TRUE(connect(n, kServer));
    ASSERT_EQ(syn(1000 + n, kServer), DropReason::kNone) << n;
    ASSERT_EQ(answer(1000 + n, kServer, kTcpRst | kTcpAck, 0, 1000), DropReason::kNone);
    if (n % 50 == 49) ++harness_.now_s;
  }
}

// By the translation behind the firewall: from the inside they were counted before.
TEST(FloodOfTranslated, WhatAnotherFunctionRefusesDoesNotCount) {
  PoolDirectory directory;
  ChainSpec spec =
      firewall(std::string(kAcceptAll) + R"(,"half_open":{"limit":100,"per_destination":90})");
  spec.functions.push_back({"nat44", R"({"external_addresses":["203.0.113.1"],)"
                                     R"("port_range":{"first":2048,"last":2111}})"});
  ChainHarness harness(spec, directory);
  std::map<DropReason, uint32_t> seen;
  for (uint16_t port = 1000; port < 3000; ++port) {
    const auto syn = PacketBuilder::tcp(kInside, port, kOutside, 80, kTcpSyn);
    ++seen[harness.send(Side::kInside, syn.build()).reason];
  }
  EXPECT_EQ(seen[DropReason::kNone], 64U);
  EXPECT_EQ(seen[DropReason::kNatPortsExhausted], 2000U - 64U);
}

// Against a list of all that are open, each with its age.
TEST(HalfOpen, NeverAdmitsMoreThanTheLimit) {
  const uint32_t seed = std::random_device{}();
  std::printf("seed %u\n", seed);
  std::mt19937 random(seed);
  for (const uint32_t timeout_s : {1U, 7U, 30U, 240U}) {
    HalfOpen half_open({50, 0, timeout_s});
    std::vector<uint32_t> open;
    uint32_t now_s = 1'000'000, admitted = 0;
    for (int step = 0; step < 20'000; ++step) {
      if (random() % 20 == 0) now_s += static_cast<uint32_t>(random() % (2 + timeout_s / 4));
      std::erase_if(open, [&](uint32_t opened_s) { return now_s - opened_s > timeout_s; });
      if (random() % 3 == 0 && !open.empty()) {
        const size_t which = random() % open.size();
        half_open.leave(7, open[which], now_s);
        open.erase(open.begin() + static_cast<std::ptrdiff_t>(which));
      } else if (half_open.open(7, now_s) == DropReason::kNone) {
        open.push_back(now_s);
        ++admitted;
      }
      ASSERT_LE(open.size(), 50U) << "time-out " << timeout_s << ", step " << step;
      ASSERT_GE(half_open.count(now_s), open.size());
    }
    EXPECT_GT(admitted, 500U);
  }
}

}  // namespace
}  // namespace flowkeep
