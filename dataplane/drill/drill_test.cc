// The pure parts of drills: what a seed decides, rates around failures, percentiles, and the log of
// takeovers.
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <memory>

#include "dataplane/drill/drill_plan.h"
#include "dataplane/drill/drill_report.h"
#include "dataplane/drill/forwarded_samples.h"
#include "dataplane/takeover_log.h"

namespace flowkeep {
namespace {

const std::vector<Victim> kUsual = {Victim::kWorker, Victim::kStandby, Victim::kSuccessor};

TEST(DrillPlan, ASeedDecidesVictimsAndIntervals) {
  DrillPlan one = DrillPlan::storm(42, 12'000, kUsual);
  DrillPlan same = DrillPlan::storm(42, 12'000, kUsual);
  DrillPlan other = DrillPlan::storm(43, 12'000, kUsual);
  bool differs = false;
  for (int i = 0; i < 100; ++i) {
    const PlannedFault a = one.next(), b = same.next(), c = other.next();
    EXPECT_EQ(a.victim, b.victim);
    EXPECT_EQ(a.after_us, b.after_us);
    EXPECT_EQ(a.pick, b.pick);
    EXPECT_EQ(a.delay_us, b.delay_us);
    differs |= a.after_us != c.after_us;
  }
  EXPECT_TRUE(differs);
}

TEST(DrillPlan, IntervalsHaveTheirMeanAndVictimsTheirShares) {
  DrillPlan plan = DrillPlan::storm(7, 1000, kUsual);
  constexpr int kDrawn = 100'000;
  std::map<Victim, int> victims;
  double sum_us = 0;
  for (int i = 0; i < kDrawn; ++i) {
    const PlannedFault fault = plan.next();
    EXPECT_GE(fault.after_us, 0);
    EXPECT_LE(fault.after_us, 8000);
    EXPECT_LT(fault.delay_us, 1000);
    sum_us += fault.after_us;
    ++victims[fault.victim];
  }
  EXPECT_NEAR(sum_us / kDrawn, 1000, 20);
  EXPECT_NEAR(victims[Victim::kStandby], kDrawn / 10, kDrawn / 100);
  EXPECT_NEAR(victims[Victim::kSuccessor], kDrawn / 10, kDrawn / 100);
  EXPECT_EQ(victims[Victim::kSeveral], 0);
}

TEST(DrillPlan, OnlyTheGivenVictims) {
  DrillPlan plan = DrillPlan::storm(7, 1000, {Victim::kStandby});
  for (int i = 0; i < 100; ++i) EXPECT_EQ(plan.next().victim, Victim::kStandby);
}

TEST(DrillPlan, ASteadyPlanGoesRoundTheSlots) {
  DrillPlan plan = DrillPlan::steady(5000);
  for (uint32_t i = 0; i < 5; ++i) {
    const PlannedFault fault = plan.next();
    EXPECT_EQ(fault.victim, Victim::kWorker);
    EXPECT_EQ(fault.pick, i);
    EXPECT_EQ(fault.after_us, 5000);
  }
}

TEST(DrillPlan, VictimsHaveNames) {
  for (const Victim victim :
       {Victim::kWorker, Victim::kStandby, Victim::kSuccessor, Victim::kSeveral})
    EXPECT_EQ(parse_victim(victim_name(victim)), victim);
  EXPECT_EQ(parse_victim("switch"), std::nullopt);
}

constexpr uint64_t kTscHz = 1'000'000'000;
constexpr uint64_t kMs = kTscHz / 1000;

// 1,000 packets a millisecond, none between `down_ms` and `up_ms`.
ForwardedSamples samples_with_gap(uint64_t down_ms, uint64_t up_ms) {
  ForwardedSamples samples(kTscHz);
  uint64_t forwarded = 0;
  for (uint64_t ms = 0; ms <= 300; ++ms) {
    samples.add(ms * kMs, forwarded);
    if (ms < down_ms || ms >= up_ms) forwarded += 1000;
  }
  return samples;
}

TEST(ForwardedSamples, ShowAGapAtItsPlaceAfterTheFailure) {
  const auto timeline = samples_with_gap(100, 103).timeline({100 * kMs});
  ASSERT_EQ(timeline.median_pps_size(), 60);
  EXPECT_EQ(timeline.first_ms(), -20);
  for (int bin = 0; bin < 60; ++bin) {
    const bool down = bin >= 20 && bin < 23;
    EXPECT_DOUBLE_EQ(timeline.median_pps(bin), down ? 0 : 1e6) << bin;
    EXPECT_EQ(timeline.failures(bin), 1u);
  }
}

TEST(ForwardedSamples, MomentsBetweenSamplesAreInterpolated) {
  const auto timeline = samples_with_gap(100, 101).timeline({100 * kMs + kMs / 4});
  EXPECT_DOUBLE_EQ(timeline.median_pps(19), 0.75e6);  // its last quarter lies in the gap
  EXPECT_DOUBLE_EQ(timeline.median_pps(20), 0.25e6);
  EXPECT_DOUBLE_EQ(timeline.median_pps(21), 1e6);
}

TEST(ForwardedSamples, AFailureIsNotBlamedForAnother) {
  // The second failure, 15 ms after the first, brings the gap.
  const auto timeline = samples_with_gap(115, 118).timeline({100 * kMs, 115 * kMs});
  EXPECT_EQ(timeline.failures(20), 2u);
  EXPECT_EQ(timeline.failures(20 + 16), 1u);  // of the second only: it is in the first one's way
  EXPECT_DOUBLE_EQ(timeline.worst_pps(20 + 16), 1e6);
  EXPECT_DOUBLE_EQ(timeline.worst_pps(20), 0);
  EXPECT_DOUBLE_EQ(timeline.mean_pps(20), 0.5e6);
  EXPECT_DOUBLE_EQ(timeline.worst_pps(20 + 12), 1e6);
}

TEST(ForwardedSamples, TheRunIsShownWithItsWorstMilliseconds) {
  const auto timeline = samples_with_gap(100, 103).timeline({});
  EXPECT_EQ(timeline.run_bin_ms(), 5);
  ASSERT_EQ(timeline.run_pps_size(), 60);
  EXPECT_DOUBLE_EQ(timeline.run_pps(19), 1e6);
  EXPECT_DOUBLE_EQ(timeline.run_pps(20), 0.4e6);
  EXPECT_DOUBLE_EQ(timeline.run_worst_pps(20), 0);
}

TEST(ForwardedSamples, BinsThatWereNotSampledAreLeftOut) {
  const auto timeline = samples_with_gap(100, 103).timeline({5 * kMs});
  EXPECT_EQ(timeline.failures(0), 0u);
  EXPECT_EQ(timeline.median_pps(0), -1);
  EXPECT_DOUBLE_EQ(timeline.median_pps(20), 1e6);
}

TEST(Percentiles, AreValuesThatWereMeasured) {
  std::vector<double> values;
  for (int i = 1000; i >= 1; --i) values.push_back(i);
  const auto figures = percentiles(values);
  EXPECT_EQ(figures.count(), 1000u);
  EXPECT_EQ(figures.p50(), 500);
  EXPECT_EQ(figures.p90(), 900);
  EXPECT_EQ(figures.p99(), 990);
  EXPECT_EQ(figures.p999(), 999);
  EXPECT_EQ(figures.max(), 1000);
  EXPECT_EQ(percentiles({7}).p999(), 7);
  EXPECT_EQ(percentiles({}).p50(), -1);
}

TEST(Worst, AreThoseThatNeverEndedThenTheLongest) {
  std::vector<Injection> injections(4);
  injections[0].detect_us = injections[0].takeover_us = injections[0].first_packet_us = 10;
  injections[1].detect_us = 10;
  injections[1].takeover_us = 20;
  injections[1].first_packet_us = 500;
  injections[3].detect_us = 50;  // a standby; 2 was never detected
  EXPECT_EQ(worst(injections, 3), (std::vector<size_t>{2, 1, 3}));
  EXPECT_EQ(worst(injections, 10).size(), 4u);
}

TEST(Resumed, FlowsAreComparedByTheirTranslation) {
  const auto flow = [](uint16_t inside, uint16_t outside) {
    Translation translation{};
    translation.inside.src_port = Be16::from_host(inside);
    translation.outside.dst_port = Be16::from_host(outside);
    return translation;
  };
  const FlowSnapshot before = {flow(1, 10), flow(2, 20), flow(3, 30), flow(5, 50)};
  const FlowSnapshot after = {flow(1, 10), flow(2, 21), flow(4, 40), flow(5, 50), flow(6, 60)};
  uint64_t changed = 0;
  EXPECT_EQ(count_resumed(before, after, changed), 2u);
  EXPECT_EQ(changed, 1u);
}

TEST(TakeoverLog, KeepsTheLatest) {
  const auto log = std::make_unique<TakeoverLog>();
  Takeover read;
  EXPECT_FALSE(log->read(1, read));
  for (int i = 1; i <= 1500; ++i) log->record({.victim_pid = i});
  EXPECT_EQ(log->last.load(), 1500u);
  EXPECT_FALSE(log->read(1500 - kTakeovers, read));
  ASSERT_TRUE(log->read(1500 - kTakeovers + 1, read));
  EXPECT_EQ(read.victim_pid, static_cast<int>(1500 - kTakeovers + 1));
}

}  // namespace
}  // namespace flowkeep
