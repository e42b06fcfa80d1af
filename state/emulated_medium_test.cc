// The medium of power-cut drills: what it holds for certain, and that what a cut leaves is
// recovered.
#include "state/emulated_medium.h"

#include <unistd.h>

#include "state/pool_test_support.h"
#include "state/redo_record.h"

namespace flowkeep {
namespace {

class EmulatedMediumTest : public testing::Test {
 protected:
  static constexpr uint64_t kPoolBytes = 5 << 20;

  ~EmulatedMediumTest() override { unlink(EmulatedMedium::path_of(directory.file()).c_str()); }
  // As a node starts.
  void start() {
    medium.reset();
    pool.reset();
    pool = open_pool(directory, kPoolBytes, true);
    ASSERT_TRUE(pool);
    auto opened = EmulatedMedium::open(directory.file(), *pool);
    ASSERT_TRUE(opened.ok());
    medium = std::move(*opened);
    pool->recover_all();
    ASSERT_TRUE(pool->attach_chain("chain", 4).ok());
    medium->begin();
  }
  uint64_t& hint() { return reinterpret_cast<uint64_t*>(pool->base())[kPageHintsAt / 8]; }

  PoolDirectory directory;
  std::unique_ptr<Pool> pool;
  std::unique_ptr<EmulatedMedium> medium;
};

TEST_F(EmulatedMediumTest, WhatIsFencedStaysAndWhatIsNotMayGo) {
  uint64_t gone = 0;
  for (uint64_t seed = 1; seed <= 16; ++seed) {
    start();
    // A lease is fenced below; a hint is never flushed.
    auto* lease = const_cast<uint32_t*>(pool->port_leases(0)) + 100;
    pool->persistence().store32(lease, static_cast<uint32_t>(seed));
    pool->persistence().store64(&hint(), 1000 + seed);
    pool->persistence().flush(lease, sizeof(*lease));
    pool->persistence().fence();
    ASSERT_TRUE(EmulatedMedium::order_cut(directory.file(), seed).ok());
    start();
    ASSERT_TRUE(medium->cut().has_value());
    EXPECT_EQ(medium->cut()->seed, seed);
    EXPECT_EQ(pool->port_leases(0)[100], seed);
    EXPECT_EQ(medium->cut()->words_at_risk, 1U);
    EXPECT_EQ(medium->cut()->words_lost, hint() == 1000 + seed ? 0U : 1U);
    gone += medium->cut()->words_lost;
  }
  EXPECT_GT(gone, 0U);
  EXPECT_LT(gone, 16U);
}

TEST_F(EmulatedMediumTest, AFenceSaysNothingOfWhatAnotherProcessFlushedUntilThatOneHasEnded) {
  for (const bool ended : {false, true}) {
    start();
    auto* lease = const_cast<uint32_t*>(pool->port_leases(0)) + 200;
    Persistence& persistence = pool->persistence();
    persistence.store32(lease, ended ? 4 : 3);
    persistence.used_by(1);
    persistence.flush(lease, sizeof(*lease));
    persistence.used_by(2);
    persistence.fence();
    if (ended) persistence.process_ended(1);
    ASSERT_TRUE(EmulatedMedium::order_cut(directory.file(), 1).ok());
    start();
    EXPECT_EQ(medium->cut()->words_at_risk, ended ? 0U : 1U);
  }
}

TEST_F(EmulatedMediumTest, ACutIsCarriedOutOnce) {
  start();
  ASSERT_TRUE(EmulatedMedium::order_cut(directory.file(), 5).ok());
  start();
  EXPECT_TRUE(medium->cut().has_value());
  start();
  EXPECT_FALSE(medium->cut().has_value());
}

// The protocol on it: bursts that were committed are there after each of many cuts.
TEST_F(EmulatedMediumTest, CommittedBurstsSurviveCuts) {
  uint64_t lost = 0;
  FlowModel model;
  for (uint32_t cut = 1; cut <= 30; ++cut) {
    start();
    {
      FlowTable table(*pool, 0, 0);
      for (uint32_t n = 0; n < 12; ++n) {
        const uint32_t flow = cut * 100 + n;
        ASSERT_EQ(open_flow(table, flow % 4, flow, flow).status, OpenStatus::kOk);
        model[flow % 4][flow] = flow;
        if (n % 3 == 2) commit_and_apply(table);
      }
      open_flow(table, 0, 90'000 + cut, 1);  // never committed
    }
    ASSERT_TRUE(EmulatedMedium::order_cut(directory.file(), cut).ok());
    start();
    lost += medium->cut()->words_lost;
    ASSERT_EQ(difference(*pool, model), "") << "seed " << cut;
    ASSERT_EQ(page_leak(*pool), "") << "seed " << cut;
  }
  EXPECT_GT(lost, 100U);
}

TEST(EmulatedMedium, APoolThatIsNotEmulatedIsRefused) {
  PoolDirectory directory;
  auto pool = open_pool(directory, 5 << 20);
  ASSERT_TRUE(pool);
  const auto opened = EmulatedMedium::open(directory.file(), *pool);
  ASSERT_FALSE(opened.ok());
  EXPECT_NE(opened.error().text().find("not emulated"), std::string::npos);
}

}  // namespace
}  // namespace flowkeep
