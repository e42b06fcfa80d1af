#include "dataplane/pktgen/pacer.h"

#include <gtest/gtest.h>

#include <limits>

#include "dataplane/pktgen/gap_meter.h"

namespace flowkeep::pktgen {
namespace {

constexpr double kTicksPerS = 1e9;
constexpr uint64_t kStart = 12'345;

// Asks every `interval` ticks until `end` and returns how many packets were granted.
uint64_t granted(Pacer& pacer, uint64_t begin, uint64_t end, uint64_t interval,
                 uint32_t most = 32) {
  uint64_t sum = 0;
  for (uint64_t now = begin; now < end; now += interval) sum += pacer.take(kStart + now, most);
  return sum;
}

TEST(Pacer, KeepsTheRate) {
  Pacer pacer(200'000, kTicksPerS, kStart);
  EXPECT_EQ(granted(pacer, 0, 1'000'000'000, 1'000), 200'000u);
  EXPECT_EQ(pacer.given_up(), 0u);
}

TEST(Pacer, KeepsARateThatDividesNothing) {
  Pacer pacer(333'333.33, kTicksPerS, kStart);
  EXPECT_NEAR(static_cast<double>(granted(pacer, 0, 3'000'000'000, 777)), 1'000'000, 2);
}

TEST(Pacer, SendsTheFirstAtOnceAndTheNextWhenItIsDue) {
  Pacer pacer(1'000, kTicksPerS, kStart);
  EXPECT_EQ(pacer.take(kStart, 32), 1u);
  EXPECT_EQ(pacer.take(kStart + 999'999, 32), 0u);
  EXPECT_EQ(pacer.ticks_to_next(kStart + 900'000), 100'000u);
  EXPECT_EQ(pacer.take(kStart + 1'000'000, 32), 1u);
}

TEST(Pacer, CatchesUpAtALimitedRate) {
  Pacer pacer(100'000, kTicksPerS, kStart);
  // 50 ms late: 5,001 packets are due, and in the next millisecond 400 may go, not 5,100.
  const uint64_t soon = granted(pacer, 50'000'000, 51'000'000, 1'000);
  EXPECT_GE(soon, 400u);
  EXPECT_LE(soon, 432u);
  const uint64_t rest = granted(pacer, 51'000'000, 1'000'000'000, 1'000);
  EXPECT_EQ(soon + rest, 100'000u);
  EXPECT_EQ(pacer.given_up(), 0u);
}

TEST(Pacer, IsBehindUntilItHasCaughtUp) {
  Pacer pacer(100'000, kTicksPerS, kStart);
  EXPECT_FALSE(pacer.behind(kStart));
  EXPECT_EQ(pacer.take(kStart + 300'000, 32), 31u);
  EXPECT_FALSE(pacer.behind(kStart + 300'000));
  EXPECT_EQ(pacer.take(kStart + 700'000, 32), 32u);
  EXPECT_TRUE(pacer.behind(kStart + 700'000));
  EXPECT_EQ(pacer.take(kStart + 710'000, 32), 0u) << "no faster than catching up may be";
  EXPECT_EQ(pacer.take(kStart + 780'000, 32), 16u);
  EXPECT_FALSE(pacer.behind(kStart + 780'000));
}

TEST(Pacer, GivesUpWhatIsTooFarBehind) {
  Pacer pacer(100'000, kTicksPerS, kStart);
  const uint64_t sent = granted(pacer, 500'000'000, 2'000'000'000, 1'000);
  EXPECT_EQ(pacer.given_up(), 40'001u);  // 50,001 were due, a tenth of a second's worth is kept
  EXPECT_EQ(sent + pacer.given_up(), 200'000u);
}

TEST(Pacer, WithoutARateIsAlwaysDue) {
  Pacer pacer(std::numeric_limits<double>::infinity(), kTicksPerS, kStart);
  EXPECT_EQ(pacer.take(kStart, 32), 32u);
  EXPECT_EQ(pacer.take(kStart, 32), 32u);
  EXPECT_EQ(pacer.ticks_to_next(kStart), 0u);
}

TEST(GapMeter, FindsTheLongestAndCountsThoseOverTheLimit) {
  GapMeter gaps(10);
  EXPECT_EQ(gaps.span_ticks(), 0u);
  for (const uint64_t now : {100, 105, 116, 126, 150, 150}) gaps.on_event(now);
  EXPECT_EQ(gaps.longest_ticks(), 24u);
  EXPECT_EQ(gaps.over_limit(), 2u);
  EXPECT_EQ(gaps.span_ticks(), 50u);
}

}  // namespace
}  // namespace flowkeep::pktgen
