// What a reader is told of events, and of those that he missed.
#include "dataplane/function_report.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>

namespace flowkeep {
namespace {

constexpr uint32_t kRevision = 7;
constexpr size_t kReadable = kSlotEvents - kBurstEvents;

class FunctionReportTest : public testing::Test {
 protected:
  void SetUp() override {
    Result<Arena> made = Arena::create({64, 2048}, {}, Hugepages::kNever);
    ASSERT_TRUE(made.ok()) << made.error().text();
    arena_ = *made;
    ChainBlock& chain = arena_.header().chains[0];
    std::strncpy(chain.name, "edge", sizeof(chain.name) - 1);
    chain.revision.store(kRevision);
    chain.active.store(1);
    slot().chain.store(0);
    slot().in_use.store(1);
  }
  void TearDown() override {
    close(arena_.fd());
    munmap(arena_.base(), arena_.header().bytes);
  }

  WorkerSlot& slot() { return arena_.header().slots[0]; }
  // In bursts; what a burst has beyond kBurstEvents is lost.
  void tell(size_t events, size_t of_a_burst = kBurstEvents) {
    while (events > 0) {
      EventStage stage;
      const size_t now = std::min(events, of_a_burst);
      for (size_t i = 0; i < now; ++i) stage.add(FunctionEvent{});
      slot().events.stage(stage, kRevision);
      slot().events.publish();
      events -= now;
    }
  }
  node::v1::FunctionReport ask(uint32_t limit) {
    request_.set_chain("edge");
    request_.set_limit(limit);
    const auto report = function_report(arena_, names_, request_);
    EXPECT_TRUE(report.ok());
    return report.ok() ? *report : node::v1::FunctionReport();
  }
  // And what comes after it the next time.
  node::v1::FunctionReport ask_on(uint32_t limit) {
    node::v1::FunctionReport report = ask(limit);
    *request_.mutable_after() = report.after();
    return report;
  }

  Arena arena_;
  CounterNames names_{"/nonexistent"};
  node::v1::FunctionReportRequest request_;
};

TEST_F(FunctionReportTest, AnyLimitIsTaken) {
  tell(3);
  EXPECT_EQ(ask(2).events_size(), 2);
  for (const uint32_t limit : {0U, 3U, 1U << 31, UINT32_MAX})
    EXPECT_EQ(ask(limit).events_size(), 3) << limit;
}

TEST_F(FunctionReportTest, EventsOfABurstThatHadTooManyAreLostOnce) {
  ask_on(0);
  tell(kBurstEvents + 5, kBurstEvents + 5);
  const auto first = ask_on(0);
  EXPECT_EQ(first.events_size(), static_cast<int>(kBurstEvents));
  EXPECT_EQ(first.events_lost(), 5U);
  tell(1);
  const auto second = ask_on(0);
  EXPECT_EQ(second.events_size(), 1);
  EXPECT_EQ(second.events_lost(), 0U);
  tell(kBurstEvents + 2, kBurstEvents + 2);
  EXPECT_EQ(ask_on(0).events_lost(), 2U);
}

TEST_F(FunctionReportTest, OverwrittenEventsAreLost) {
  ask_on(0);
  tell(kReadable + 10);
  const auto report = ask_on(0);
  EXPECT_EQ(report.events_size(), static_cast<int>(kReadable));
  EXPECT_EQ(report.events_lost(), 10U);
}

// The first time it is what was asked for.
TEST_F(FunctionReportTest, EventsBeyondTheLimitAreLostToWhoFollows) {
  tell(10);
  EXPECT_EQ(ask_on(4).events_lost(), 0U);
  tell(10);
  const auto report = ask_on(4);
  EXPECT_EQ(report.events_size(), 4);
  EXPECT_EQ(report.events_lost(), 6U);
}

TEST_F(FunctionReportTest, AReaderOfANodeThatStartedAnewIsToldAll) {
  tell(10);
  ask_on(0);
  TearDown();
  SetUp();
  tell(3);
  EXPECT_EQ(ask_on(0).events_size(), 3);
}

}  // namespace
}  // namespace flowkeep
