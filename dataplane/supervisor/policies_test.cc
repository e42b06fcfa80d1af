// What the supervisor decides about deaths and hangs, as tables: clock and observations in, verdict
// out.
#include <gtest/gtest.h>

#include "dataplane/supervisor/crash_loop.h"
#include "dataplane/supervisor/ending.h"
#include "dataplane/supervisor/hang.h"
#include "dataplane/supervisor/poison.h"
#include "dataplane/supervisor/revision_health.h"

namespace flowkeep {
namespace {

constexpr uint64_t kSecond = 1'000'000;

// ---- Endings.

siginfo_t killed_by(int number) {
  siginfo_t info{};
  info.si_code = CLD_KILLED;
  info.si_status = number;
  return info;
}

TEST(Ending, SignalsOfABrokenProgramAreItsOwnFault) {
  for (const int number : {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGSYS, SIGTRAP})
    EXPECT_TRUE(ending_of(killed_by(number), false).own_fault) << number;
  for (const int number : {SIGKILL, SIGTERM, SIGHUP, SIGINT})
    EXPECT_FALSE(ending_of(killed_by(number), false).own_fault) << number;
  EXPECT_EQ(ending_of(killed_by(SIGSEGV), false).text, "SIGSEGV");
}

TEST(Ending, AnExitIsItsOwnFaultUnlessItWasToLeave) {
  siginfo_t info{};
  info.si_code = CLD_EXITED;
  EXPECT_TRUE(ending_of(info, false).own_fault);
  EXPECT_FALSE(ending_of(info, true).own_fault);
  EXPECT_EQ(ending_of(info, true).text, "exit status 0");
}

// ---- Poison.

TEST(PoisonSearch, FindsThePacketThatKillsInCompanyAndThenAlone) {
  PoisonSearch search;
  search.note_death(1, 100, 164, DeathCause::kOwn);
  EXPECT_FALSE(search.has_killed_twice(100));
  ASSERT_TRUE(search.suspects_from(100));
  EXPECT_EQ(search.suspects_end(), 164U);
  search.note_death(2, 120, 121, DeathCause::kOwn);  // 100 to 119 have passed
  EXPECT_TRUE(search.has_killed_twice(120));
  EXPECT_FALSE(search.has_killed_twice(121));
}

TEST(PoisonSearch, APacketThatIsAloneFromTheBeginningHasToKillTwice) {
  PoisonSearch search;
  search.note_death(1, 7, 8, DeathCause::kOwn);
  EXPECT_FALSE(search.has_killed_twice(7));
  search.note_death(2, 7, 8, DeathCause::kOwn);
  EXPECT_TRUE(search.has_killed_twice(7));
}

TEST(PoisonSearch, DeathsThatAreExplainedProveNothingAgainstNeighbours) {
  PoisonSearch search;
  search.note_death(1, 100, 164, DeathCause::kOwn);
  search.note_death(2, 120, 121, DeathCause::kOwn);
  ASSERT_TRUE(search.has_killed_twice(120));
  search.acquit_neighbours_of(120);
  search.note_death(3, 130, 131, DeathCause::kOwn);
  EXPECT_FALSE(search.has_killed_twice(130));
  EXPECT_EQ(search.suspects_end(), 164U);  // still one at a time
  search.note_death(4, 130, 131, DeathCause::kOwn);
  EXPECT_TRUE(search.has_killed_twice(130));
}

TEST(PoisonSearch, AStormOfKillsMakesNothingGuilty) {
  PoisonSearch search;
  for (uint64_t worker = 0; worker < 1000; ++worker)
    search.note_death(worker, 50, 51, DeathCause::kOutside);
  EXPECT_FALSE(search.has_killed_twice(50));
  EXPECT_FALSE(search.suspects_from(50));
  search.note_death(1000, 50, 51, DeathCause::kOwn);
  search.note_death(1001, 50, 51, DeathCause::kOutside);
  EXPECT_FALSE(search.has_killed_twice(50));
}

TEST(PoisonSearch, ACauseThatIsNotKnownYetMakesSuspectsAndProvesNothing) {
  PoisonSearch search;
  search.note_death(1, 0, 64, DeathCause::kUnknown);
  EXPECT_TRUE(search.suspects_from(0));
  search.note_death(2, 3, 4, DeathCause::kUnknown);
  EXPECT_FALSE(search.has_killed_twice(3));
  search.note_cause(1, DeathCause::kOwn);
  EXPECT_FALSE(search.has_killed_twice(3));
  search.note_cause(2, DeathCause::kOwn);
  EXPECT_TRUE(search.has_killed_twice(3));
}

TEST(PoisonSearch, AKillThatTurnsOutToComeFromOutsideIsForgotten) {
  PoisonSearch search;
  search.note_death(1, 0, 64, DeathCause::kUnknown);
  search.note_cause(1, DeathCause::kOutside);
  EXPECT_FALSE(search.suspects_from(0));
}

TEST(PoisonSearch, WhatHasPassedIsForgotten) {
  PoisonSearch search;
  search.note_death(1, 100, 164, DeathCause::kOwn);
  search.note_death(2, 164, 200, DeathCause::kOwn);
  EXPECT_FALSE(search.suspects_from(200));
  EXPECT_EQ(search.suspects_end(), 200U);
  search.note_death(3, 150, 151, DeathCause::kOwn);  // after 2^32 packets, say
  EXPECT_FALSE(search.has_killed_twice(150));
}

TEST(PoisonSearch, DeathsOutsideOfABurstMakeNoSuspects) {
  PoisonSearch search;
  search.note_death(1, 100, 100, DeathCause::kOwn);
  EXPECT_FALSE(search.suspects_from(100));
}

TEST(PoisonSearch, PositionsWrap) {
  PoisonSearch search;
  search.note_death(1, 0xfffffff0U, 0x30, DeathCause::kOwn);
  EXPECT_TRUE(search.suspects_from(0xfffffff0U));
  EXPECT_TRUE(search.suspects_from(0x2f));
  EXPECT_FALSE(search.suspects_from(0x30));
  search.note_death(2, 3, 4, DeathCause::kOwn);
  EXPECT_TRUE(search.has_killed_twice(3));
  EXPECT_EQ(search.suspects_end(), 0x30U);
}

// ---- Back-off.

TEST(CrashLoop, WaitsDoubleBetweenTheirBounds) {
  CrashLoop loop({.free_deaths = 2, .first_wait_us = 10, .last_wait_us = 70, .healthy_us = 1000});
  const uint64_t expected_us[] = {0, 0, 10, 20, 40, 70, 70};
  uint64_t now_us = 5000;
  for (const uint64_t wait_us : expected_us) {
    EXPECT_EQ(loop.note_death(now_us), wait_us);
    EXPECT_EQ(loop.looping(now_us), wait_us > 0);
    now_us += wait_us + 1;
  }
  EXPECT_EQ(loop.deaths(), 7U);
}

TEST(CrashLoop, HealthIsCountedFromTheStartAndEndsTheLoop) {
  CrashLoop loop({.free_deaths = 0, .first_wait_us = 500, .last_wait_us = 500, .healthy_us = 1000});
  EXPECT_EQ(loop.note_death(0), 500U);
  EXPECT_TRUE(loop.looping(1499));
  EXPECT_FALSE(loop.looping(1500));
  EXPECT_EQ(loop.note_death(1500), 500U);
  EXPECT_EQ(loop.deaths(), 1U);
}

TEST(CrashLoop, RareDeathsNeverWait) {
  CrashLoop loop;
  for (uint64_t i = 1; i < 100; ++i) EXPECT_EQ(loop.note_death(i * 11 * kSecond), 0U);
}

// ---- Revisions.

TEST(RevisionHealth, AYoungRevisionIsGivenUpAfterAFewDeaths) {
  RevisionHealth health(1000 * kSecond);
  for (uint32_t i = 0; i < 4; ++i) health.note_death((1001 + i) * kSecond);
  EXPECT_FALSE(health.hopeless(1005 * kSecond));
  health.note_death(1005 * kSecond);
  EXPECT_TRUE(health.hopeless(1005 * kSecond));
  EXPECT_EQ(health.deaths(), 5U);
}

TEST(RevisionHealth, AnOldOneOnlyWhenManyFallIntoOneWindow) {
  RevisionHealth health(0);
  uint64_t now_us = 1000 * kSecond;
  for (uint32_t i = 0; i < 100; ++i) {
    health.note_death(now_us += 4 * kSecond);  // 15 a minute
    EXPECT_FALSE(health.hopeless(now_us));
  }
  for (uint32_t i = 0; i < 20; ++i) health.note_death(now_us += kSecond);
  EXPECT_TRUE(health.hopeless(now_us));
  EXPECT_FALSE(health.hopeless(now_us + 60 * kSecond));
}

TEST(RevisionHealth, IsGoodWithoutDeathsOfLate) {
  RevisionHealth health(0);
  EXPECT_TRUE(health.good(1));
  health.note_death(10 * kSecond);
  EXPECT_FALSE(health.good(69 * kSecond));
  EXPECT_TRUE(health.good(70 * kSecond));
}

// ---- Hangs.

class FakeProcess final : public ProcessView {
 public:
  int64_t cpu_ns() const override { return cpu; }
  char state() const override { return letter; }
  int64_t cpu = 0;
  char letter = 'R';
};

class Hang : public testing::Test {
 protected:
  // Looks every 10 ms for that long; `share` of the time the processor is its own, and it ends a
  // burst every `burst_ms` (0: never).
  HangVerdict watch_ms(uint64_t milliseconds, double share, uint64_t burst_ms = 0,
                       bool packets_wait = true) {
    HangVerdict verdict = HangVerdict::kFine;
    for (uint64_t end_us = now_us_ + milliseconds * 1000;
         now_us_ < end_us && verdict == HangVerdict::kFine;) {
      now_us_ += 10'000;
      process_.cpu += static_cast<int64_t>(share * 10e6);
      if (burst_ms != 0 && now_us_ / 1000 % burst_ms == 0) ++bursts_;
      verdict = watch_.look(bursts_, packets_wait, now_us_, kLimitUs, process_);
    }
    return verdict;
  }
  static constexpr uint64_t kLimitUs = 100'000;
  HangWatch watch_;
  FakeProcess process_;
  uint64_t now_us_ = 0;
  uint64_t bursts_ = 1;
};

TEST_F(Hang, ALoopIsFoundByItsProcessorTime) {
  EXPECT_EQ(watch_ms(90, 1), HangVerdict::kFine);
  EXPECT_EQ(watch_ms(50, 1), HangVerdict::kLoops);
  EXPECT_GT(watch_.used_ns(), 100'000'000);
}

TEST_F(Hang, ALoopThatSharesItsProcessorIsFoundLater) {
  EXPECT_EQ(watch_ms(900, 0.1), HangVerdict::kFine);
  EXPECT_EQ(watch_ms(300, 0.1), HangVerdict::kLoops);
}

TEST_F(Hang, ASlowWorkerThatMakesProgressIsFine) {
  EXPECT_EQ(watch_ms(60'000, 1, 90), HangVerdict::kFine);
}

TEST_F(Hang, OneThatIsNotScheduledIsFine) {
  EXPECT_EQ(watch_ms(600'000, 0), HangVerdict::kFine);
}

TEST_F(Hang, OneThatSleepsIsFine) {
  process_.letter = 'S';
  EXPECT_EQ(watch_ms(600'000, 0), HangVerdict::kFine);
  EXPECT_EQ(watch_ms(600'000, 0, 0, false), HangVerdict::kFine);
}

TEST_F(Hang, AStoppedOneIsFoundWhenAPacketWaits) {
  process_.letter = 'T';
  EXPECT_EQ(watch_ms(600'000, 0, 0, false), HangVerdict::kFine);
  EXPECT_EQ(watch_ms(90, 0), HangVerdict::kFine);
  EXPECT_EQ(watch_ms(30, 0), HangVerdict::kStopped);
}

TEST_F(Hang, ADebuggerStopsATracedOneAlike) {
  process_.letter = 't';
  EXPECT_EQ(watch_ms(200, 0), HangVerdict::kStopped);
}

TEST_F(Hang, OneThatWasStoppedForAMomentIsFine) {
  process_.letter = 'T';
  EXPECT_EQ(watch_ms(50, 0), HangVerdict::kFine);
  process_.letter = 'R';
  EXPECT_EQ(watch_ms(1000, 0.001), HangVerdict::kFine);
}

TEST_F(Hang, OneThatIsGoneIsNoHang) {
  process_.cpu = -1'000'000'000'000;
  EXPECT_EQ(watch_ms(1000, 1), HangVerdict::kFine);
}

}  // namespace
}  // namespace flowkeep
