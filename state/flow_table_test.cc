// FlowTable without crashes: what a burst sees, what a commit leaves, growth and a full pool.
#include "state/flow_table.h"

#include <sys/wait.h>

#include <numeric>

#include "state/pool_test_support.h"

namespace flowkeep {
namespace {

constexpr uint64_t kMiB = 1024 * 1024;

class FlowTableTest : public testing::Test {
 protected:
  void SetUp() override {
    pool = open_pool(directory, 64 * kMiB);
    ASSERT_TRUE(pool);
    ASSERT_TRUE(pool->attach_chain("chain", 256).ok());
  }

  PoolDirectory directory;
  std::unique_ptr<Pool> pool;
};

TEST_F(FlowTableTest, ABurstSeesItsOwnWritesAndThePoolDoesNotUntilApply) {
  FlowTable table(*pool, 0, 0);
  FlowTable other(*pool, 0, 1);
  const auto opened = open_flow(table, 3, 1, 77);
  ASSERT_EQ(opened.status, OpenStatus::kOk);
  EXPECT_TRUE(table.dirty());
  EXPECT_EQ(find_inside(table, 3, 1), opened.id);
  EXPECT_EQ(find_outside(table, 3, 1), opened.id);
  EXPECT_EQ(hard_word(table.record(opened.id)), 77u);
  EXPECT_EQ(table.flows(3), 1u);
  EXPECT_EQ(find_inside(other, 3, 1), 0u);
  EXPECT_EQ(other.flows(3), 0u);

  EXPECT_EQ(table.commit({5, 6}), 1u);
  EXPECT_EQ(find_inside(other, 3, 1), 0u);
  table.apply();
  EXPECT_FALSE(table.dirty());
  EXPECT_EQ(find_inside(other, 3, 1), opened.id);
  EXPECT_EQ(other.flows(3), 1u);
}

// Nobody looks at a record's checksum on the packet path, so a flow goes on after damage; but
// commits over it must not make it look whole. The next flow in its place is whole again.
TEST_F(FlowTableTest, DamageIsNotCoveredUpByCommits) {
  FlowTable table(*pool, 0, 0);
  const RecordId id = open_flow(table, 0, 1, 1).id;
  commit_and_apply(table);
  ASSERT_EQ(bad_checksum(*pool), "");
  Regions(pool->base(), Geometry::of(pool->bytes())).record(id).hard[40] ^= 1;
  const std::string damaged = "checksum of record " + std::to_string(id);
  EXPECT_EQ(bad_checksum(*pool), damaged);
  table.stage(id).phase = FlowPhase::kClosed;
  commit_and_apply(table);
  EXPECT_EQ(bad_checksum(*pool), damaged);
  table.close(id);
  commit_and_apply(table);
  EXPECT_EQ(bad_checksum(*pool), damaged);
  ASSERT_EQ(open_flow(table, 0, 2, 2).id, id);
  commit_and_apply(table);
  EXPECT_EQ(difference(*pool, {{0, {{2, 2}}}}), "");
}

TEST_F(FlowTableTest, AnAbandonedBurstLeavesNothing) {
  FlowTable table(*pool, 0, 0);
  const uint64_t free_before = pool->free_pages();
  ASSERT_EQ(open_flow(table, 0, 1, 1).status, OpenStatus::kOk);
  EXPECT_LT(pool->free_pages(), free_before);
  table.abandon();
  EXPECT_EQ(find_inside(table, 0, 1), 0u);
  EXPECT_EQ(pool->free_pages(), free_before);
  ASSERT_EQ(open_flow(table, 0, 2, 2).status, OpenStatus::kOk);
  commit_and_apply(table);
  EXPECT_EQ(difference(*pool, {{0, {{2, 2}}}}), "");
  EXPECT_EQ(page_leak(*pool), "");
}

TEST_F(FlowTableTest, AKeyIsOpenedOnce) {
  FlowTable table(*pool, 0, 0);
  ASSERT_EQ(open_flow(table, 0, 1, 1).status, OpenStatus::kOk);
  EXPECT_EQ(open_flow(table, 0, 1, 1).status, OpenStatus::kKeyExists);
  EXPECT_EQ(table.open(0, inside_key(2), outside_key(1)).status, OpenStatus::kKeyExists);
  commit_and_apply(table);
  EXPECT_EQ(table.open(0, inside_key(1), outside_key(2)).status, OpenStatus::kKeyExists);
  EXPECT_FALSE(table.dirty());
}

TEST_F(FlowTableTest, AClosedRecordIsUsedAgainAndCarriesNothingOver) {
  FlowTable table(*pool, 0, 0);
  const RecordId first = open_flow(table, 0, 1, ~uint64_t{0}).id;
  std::memset(table.stage(first).hard, 0xff, kHardStateBytes);
  commit_and_apply(table);
  table.close(first);
  EXPECT_EQ(find_inside(table, 0, 1), 0u);
  EXPECT_EQ(find_outside(table, 0, 1), 0u);
  commit_and_apply(table);
  EXPECT_EQ(difference(*pool, {}), "");
  const auto opened = table.open(0, inside_key(2), outside_key(2));
  EXPECT_EQ(opened.id, first);
  const uint8_t zeros[kHardStateBytes] = {};
  EXPECT_EQ(std::memcmp(table.record(first).hard, zeros, sizeof(zeros)), 0);
  EXPECT_EQ(table.record(first).next_free, 0u);
  commit_and_apply(table);
  EXPECT_EQ(difference(*pool, {{0, {{2, 0}}}}), "");
}

TEST_F(FlowTableTest, OpenAndCloseWithinOneBurst) {
  FlowTable table(*pool, 0, 0);
  for (uint32_t n = 0; n < 20; ++n) table.close(open_flow(table, 0, n, n).id);
  ASSERT_EQ(open_flow(table, 0, 100, 5).status, OpenStatus::kOk);
  commit_and_apply(table);
  EXPECT_EQ(difference(*pool, {{0, {{100, 5}}}}), "");
}

TEST_F(FlowTableTest, TouchIsSeenAtOnceAndSurvivesACommitOfTheRecord) {
  FlowTable table(*pool, 0, 0);
  const RecordId id = open_flow(table, 0, 1, 1).id;
  commit_and_apply(table);
  table.touch(id, 2000);
  EXPECT_FALSE(table.dirty());
  EXPECT_EQ(table.record(id).last_seen_s, 2000u);
  table.stage(id).revision = 7;
  table.touch(id, 3000);
  EXPECT_EQ(table.record(id).last_seen_s, 3000u);
  commit_and_apply(table);
  EXPECT_EQ(table.record(id).last_seen_s, 3000u);
  EXPECT_EQ(table.record(id).revision, 7u);
}

// Two IPv6 flows whose addresses have the same folds, which nobody outside can arrange.
TEST_F(FlowTableTest, FlowsOfOneKeyAreToldApartByTheirAddresses) {
  FlowTable table(*pool, 0, 0);
  NumberedFlow one = numbered_flow(3, table.hash_secret());
  WideAddresses others = one.addresses;
  others.src[15] ^= 1;
  const uint64_t hash = hash_key(one.inside, table.hash_secret());
  const auto first = table.open(0, one.inside, one.outside, &one.addresses);
  ASSERT_EQ(first.status, OpenStatus::kOk);
  EXPECT_EQ(table.find(0, one.inside, hash, &others), 0u) << "staged";
  const auto second = table.open(0, one.inside, one.outside, &others);
  ASSERT_EQ(second.status, OpenStatus::kOk);
  EXPECT_EQ(table.open(0, one.inside, one.outside, &others).status, OpenStatus::kKeyExists);
  commit_and_apply(table);
  const uint64_t outside_hash = hash_key(one.outside, table.hash_secret());
  for (const auto& [addresses, id] :
       {std::pair(one.addresses, first.id), std::pair(others, second.id)}) {
    const WideAddresses reversed = addresses.reversed();
    EXPECT_EQ(table.find(0, one.inside, hash, &addresses), id);
    EXPECT_EQ(table.find(0, one.outside, outside_hash, &reversed), id);
    EXPECT_EQ(table.find(0, one.outside, outside_hash, &addresses), 0u) << "the wrong way round";
  }
  table.close(first.id);
  commit_and_apply(table);
  EXPECT_EQ(table.find(0, one.inside, hash, &one.addresses), 0u);
  EXPECT_EQ(table.find(0, one.inside, hash, &others), second.id);
}

// An IPv4 flow leaves the third line of its place as it is, and commits nothing of it.
TEST_F(FlowTableTest, FamiliesFollowEachOtherInOnePlace) {
  FlowTable table(*pool, 0, 0);
  for (const uint32_t n : {3u, 4u, 7u, 11u, 8u, 15u}) {
    ASSERT_EQ(open_flow(table, 0, n, n).status, OpenStatus::kOk);
    commit_and_apply(table);
    EXPECT_EQ(difference(*pool, {{0, {{n, n}}}}), "") << n;
    table.close(find_inside(table, 0, n));
    commit_and_apply(table);
  }
  EXPECT_EQ(bad_checksum(*pool), "");
}

TEST_F(FlowTableTest, SoftStateIsSeenAtOnceAndStaysOutOfTheLog) {
  for (const uint32_t n : {1u, 3u}) {
    FlowTable table(*pool, 0, 0);
    const RecordId id = open_flow(table, 0, n, n).id;
    commit_and_apply(table);
    const std::array<uint8_t, 16> state = {1, 2, 3};
    table.store_soft(id, 8, state);
    EXPECT_FALSE(table.dirty());
    table.stage(id).revision = 7;
    EXPECT_EQ(table.soft(id)[9], 2);
    commit_and_apply(table);
    EXPECT_EQ(table.soft(id)[10], 3);
    RedoLog(*pool, 0).apply_newest();
    EXPECT_EQ(table.soft(id)[10], 3);
    EXPECT_EQ(bad_checksum(*pool), "");
    table.close(id);
    ASSERT_EQ(open_flow(table, 0, n + 4, n).id, id);
    EXPECT_EQ(table.soft(id)[9], 2) << "what the place held";
    table.close(id);
    commit_and_apply(table);
  }
}

TEST_F(FlowTableTest, RecoveryDoesNotTurnTheClockBack) {
  FlowTable table(*pool, 0, 0);
  const RecordId id = open_flow(table, 0, 1, 1).id;
  commit_and_apply(table);
  table.touch(id, 5000);
  RedoLog(*pool, 0).apply_newest();
  EXPECT_EQ(table.record(id).last_seen_s, 5000u);
}

TEST_F(FlowTableTest, OneBucketHoldsAHundredThousandFlows) {
  constexpr uint32_t kFlows = 100'000;
  FlowTable table(*pool, 0, 0);
  FlowModel model;
  for (uint32_t n = 0; n < kFlows; ++n) {
    if (!table.has_room(1)) commit_and_apply(table);
    ASSERT_EQ(open_flow(table, 5, n, n * 3).status, OpenStatus::kOk) << n;
    model[5][n] = n * 3;
    if (n % 64 == 63) commit_and_apply(table);
  }
  commit_and_apply(table);
  EXPECT_EQ(difference(*pool, model), "");
  EXPECT_EQ(page_leak(*pool), "");
  EXPECT_EQ(find_inside(table, 5, kFlows), 0u);
  EXPECT_EQ(find_inside(table, 6, 1), 0u);
}

TEST_F(FlowTableTest, HasRoomKeepsItsPromiseForNewBuckets) {
  FlowTable table(*pool, 0, 0);
  ASSERT_TRUE(table.has_room(64));
  for (uint32_t n = 0; n < 64; ++n) {
    ASSERT_EQ(open_flow(table, n, n, n).status, OpenStatus::kOk) << n;
  }
  commit_and_apply(table);
  EXPECT_TRUE(table.has_room(64));
}

TEST_F(FlowTableTest, AWriteSetThatIsFullRefusesAndKeepsWhatItHas) {
  FlowTable table(*pool, 0, 0);
  FlowModel model;
  uint32_t n = 0;
  for (;; ++n) {
    const auto opened = open_flow(table, n % 256, n, n);
    if (opened.status == OpenStatus::kWriteSetFull) break;
    ASSERT_EQ(opened.status, OpenStatus::kOk);
    model[n % 256][n] = n;
    ASSERT_LT(n, 1000u);
  }
  EXPECT_FALSE(table.has_room(1));
  commit_and_apply(table);
  EXPECT_EQ(difference(*pool, model), "");
  EXPECT_EQ(open_flow(table, n % 256, n, n).status, OpenStatus::kOk);
}

TEST_F(FlowTableTest, SweepVisitsEachLiveRecordOnceARoundAndMayCloseIt) {
  FlowTable table(*pool, 0, 0);
  for (uint32_t n = 0; n < 100; ++n) {
    open_flow(table, 1, n, n);
    if (n % 30 == 29) commit_and_apply(table);
  }
  commit_and_apply(table);
  std::map<uint64_t, int> seen;
  for (int call = 0; call < 10; ++call) {
    table.sweep(1, 10, [&](RecordId, const FlowRecord& record) { ++seen[hard_word(record)]; });
  }
  EXPECT_EQ(seen.size(), 100u);
  for (const auto& [n, times] : seen) EXPECT_EQ(times, 1) << n;

  table.sweep(1, 1, [](RecordId, const FlowRecord&) {});  // notices the end of the round
  uint32_t closed = 0;
  for (int call = 0; call < 11; ++call) {
    table.sweep(1, 10, [&](RecordId id, const FlowRecord&) { table.close(id), ++closed; });
    commit_and_apply(table);
  }
  EXPECT_EQ(closed, 100u);
  EXPECT_EQ(table.flows(1), 0u);
  EXPECT_EQ(difference(*pool, {}), "");
}

TEST_F(FlowTableTest, ALeaseHasOneHolder) {
  FlowTable table(*pool, 0, 0);
  EXPECT_EQ(table.lease_owner(0, 20), -1);
  EXPECT_TRUE(table.lease_acquire(0, 20, 9));
  EXPECT_FALSE(table.lease_acquire(0, 20, 10));
  EXPECT_EQ(table.lease_owner(0, 20), 9);
  EXPECT_EQ(pool->port_leases(0)[20], 10u);
  EXPECT_EQ(table.lease_owner(1, 20), -1);
  EXPECT_FALSE(table.lease_acquire(0, kFirstLeasedBlock - 1, 9));
  EXPECT_TRUE(table.lease_acquire(0, kFirstLeasedBlock, 0));
}

TEST_F(FlowTableTest, SequencesGoOnAfterTheNewestRecordOfTheLog) {
  {
    FlowTable table(*pool, 0, 4);
    for (uint32_t n = 0; n < 3; ++n) open_flow(table, 0, n, n), commit_and_apply(table);
  }
  FlowTable table(*pool, 0, 5);
  table.adopt_log(4);
  open_flow(table, 0, 9, 9);
  EXPECT_EQ(table.commit({1, 2}), 4u);
  table.apply();
  const auto newest = RedoLog(*pool, 4).newest();
  EXPECT_TRUE(newest.valid);
  EXPECT_EQ(newest.sequence, 4u);
  EXPECT_EQ(newest.after, (BurstPositions{1, 2}));
  EXPECT_EQ(RedoLog(*pool, 4).applied(), 4u);
  EXPECT_FALSE(RedoLog(*pool, 5).newest().valid);
}

TEST_F(FlowTableTest, ARetiredRecordIsNotApplied) {
  FlowTable table(*pool, 0, 0);
  const RecordId id = open_flow(table, 0, 1, 1).id;
  commit_and_apply(table);
  RedoLog log(*pool, 0);
  log.retire(1);
  EXPECT_FALSE(log.newest().valid);
  // The bucket's next owner commits to another log; the first log must not undo that.
  FlowTable next(*pool, 0, 1);
  const uint64_t changed = 2;
  std::memcpy(next.stage(id).hard, &changed, sizeof(changed));
  commit_and_apply(next);
  log.apply_newest();
  EXPECT_EQ(difference(*pool, {{0, {{1, 2}}}}), "");
  // The first worker goes on with other buckets, after the mark.
  open_flow(table, 1, 5, 5);
  EXPECT_EQ(table.commit({}), 2u);
  table.apply();
  EXPECT_TRUE(log.newest().valid);
}

TEST_F(FlowTableTest, RetiringABurstLeavesTheOneAfterItValid) {
  FlowTable table(*pool, 0, 0);
  for (uint32_t n = 0; n < 2; ++n) open_flow(table, 0, n, n), commit_and_apply(table);
  RedoLog log(*pool, 0);
  log.retire(1);
  EXPECT_EQ(log.newest().sequence, 2u);
  log.retire(2);
  log.retire(1);  // never backwards
  EXPECT_FALSE(log.newest().valid);
}

TEST(FullPool, RefusesNewFlowsKeepsOldOnesAndTakesNewOnesAfterCloses) {
  PoolDirectory directory;
  auto pool = open_pool(directory, Pool::minimum_bytes());
  ASSERT_TRUE(pool && pool->attach_chain("chain", 4).ok());
  FlowTable table(*pool, 0, 0);
  FlowModel model;
  uint32_t n = 0;
  for (bool full = false; !full;) {
    const auto opened = open_flow(table, n % 4, n, n);
    full = opened.status == OpenStatus::kPoolFull;
    ASSERT_TRUE(full || opened.status == OpenStatus::kOk);
    if (!full) model[n % 4][n] = n, ++n;
    commit_and_apply(table);
  }
  EXPECT_GT(n, 500u);
  EXPECT_EQ(open_flow(table, n % 4, n, n).status, OpenStatus::kPoolFull);
  commit_and_apply(table);
  EXPECT_EQ(difference(*pool, model), "");
  EXPECT_EQ(page_leak(*pool), "");

  for (uint32_t closed = 0; closed < n / 2; ++closed) {
    table.close(find_inside(table, closed % 4, closed));
    model[closed % 4].erase(closed);
    commit_and_apply(table);
  }
  for (uint32_t again = 10'000; again < 10'000 + n / 4; ++again) {
    ASSERT_EQ(open_flow(table, again % 4, again, 1).status, OpenStatus::kOk);
    model[again % 4][again] = 1;
    commit_and_apply(table);
  }
  EXPECT_EQ(difference(*pool, model), "");

  // Pages that another chain gives back are found, though the table was full when last searched.
  ASSERT_TRUE(pool->drop_chain("chain").ok());
  EXPECT_EQ(pool->free_pages(), pool->total_pages());
  ASSERT_TRUE(pool->attach_chain("next", 4).ok());
  EXPECT_EQ(open_flow(table, 0, 1, 1).status, OpenStatus::kOk);
}

// Each bucket has its owner, the pages are everybody's.
TEST(ManyWorkers, FillDifferentBucketsAtOnce) {
  constexpr uint32_t kWorkers = 4;
  constexpr uint32_t kFlows = 5'000;
  PoolDirectory directory;
  auto pool = open_pool(directory, 32 * kMiB);
  ASSERT_TRUE(pool && pool->attach_chain("chain", 8).ok());
  for (uint32_t worker = 0; worker < kWorkers; ++worker) {
    if (fork() != 0) continue;
    FlowTable table(*pool, 0, worker);
    for (uint32_t i = 0; i < kFlows; ++i) {
      const uint32_t n = worker * kFlows + i;
      if (open_flow(table, worker + 4 * (i % 2), n, n).status != OpenStatus::kOk) _exit(1);
      if (i % 16 == 15) commit_and_apply(table);
    }
    commit_and_apply(table);
    _exit(0);
  }
  for (uint32_t worker = 0; worker < kWorkers; ++worker) {
    int status = 0;
    wait(&status);
    EXPECT_EQ(status, 0);
  }
  FlowModel model;
  for (uint32_t n = 0; n < kWorkers * kFlows; ++n) {
    model[n / kFlows + 4 * (n % kFlows % 2)][n] = n;
  }
  EXPECT_EQ(difference(*pool, model), "");
  EXPECT_EQ(page_leak(*pool), "");
}

// Random openings, changes, closings, commits, abandons and reopenings against a plain map.
TEST(FlowTableProperty, BehavesLikeAMap) {
  const uint64_t seed = std::random_device{}();
  RecordProperty("seed", std::to_string(seed));
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  PoolDirectory directory;
  auto pool = open_pool(directory, 16 * kMiB);
  ASSERT_TRUE(pool && pool->attach_chain("chain", 4).ok());
  auto table = std::make_unique<FlowTable>(*pool, 0, 0);
  FlowModel committed;
  FlowModel staged;
  for (int step = 0; step < 60'000; ++step) {
    const auto n = static_cast<uint32_t>(random() % 6'000);
    const uint32_t bucket = n % 4;
    const bool is_open = staged[bucket].contains(n);
    if (!table->has_room(1)) commit_and_apply(*table), committed = staged;
    switch (random() % 8) {
      case 0:
      case 1:
      case 2: {
        const auto opened = open_flow(*table, bucket, n, random());
        ASSERT_EQ(opened.status, is_open ? OpenStatus::kKeyExists : OpenStatus::kOk);
        if (!is_open) staged[bucket][n] = hard_word(table->record(opened.id));
        break;
      }
      case 3:
      case 4: {
        const RecordId id = find_outside(*table, bucket, n);
        ASSERT_EQ(id != 0, is_open);
        if (is_open) table->close(id), staged[bucket].erase(n);
        break;
      }
      default: {
        const RecordId id = find_inside(*table, bucket, n);
        ASSERT_EQ(id != 0, is_open);
        if (!is_open) break;
        ASSERT_EQ(hard_word(table->record(id)), staged[bucket][n]);
        const uint64_t state = random();
        std::memcpy(table->stage(id).hard, &state, sizeof(state));
        staged[bucket][n] = state;
      }
    }
    const uint64_t end = random() % 1'000;
    if (end < 50) {
      commit_and_apply(*table);
      committed = staged;
    } else if (end < 55) {
      table->abandon();
      staged = committed;
    } else if (end == 55) {
      table.reset();
      pool.reset();
      pool = open_pool(directory, 16 * kMiB);
      ASSERT_TRUE(pool);
      pool->recover_all();
      staged = committed;
      ASSERT_EQ(difference(*pool, committed), "");
      ASSERT_EQ(page_leak(*pool), "");
      table = std::make_unique<FlowTable>(*pool, 0, 0);
    }
  }
  commit_and_apply(*table);
  EXPECT_EQ(difference(*pool, staged), "");
}

// A standby is made while the worker in slot 0 is in the middle of a burst.
TEST(FlowTableLogs, ATableWithoutALogLeavesTheClaimsOfOthersAlone) {
  PoolDirectory directory;
  auto pool = open_pool(directory, 8 << 20);
  ASSERT_TRUE(pool && pool->attach_chain("chain", 4).ok());
  FlowTable worker(*pool, 0, 0);
  ASSERT_EQ(open_flow(worker, 0, 1, 1).status, OpenStatus::kOk);
  const uint64_t free_pages = pool->free_pages();
  FlowTable standby(*pool, 0, FlowTable::kNoLog);
  EXPECT_EQ(pool->free_pages(), free_pages);
  commit_and_apply(worker);
  EXPECT_EQ(page_leak(*pool), "");
  standby.adopt_log(1);
  ASSERT_EQ(open_flow(standby, 1, 2, 2).status, OpenStatus::kOk);
  commit_and_apply(standby);
  EXPECT_EQ(difference(*pool, {{0, {{1, 1}}}, {1, {{2, 2}}}}), "");
  EXPECT_EQ(page_leak(*pool), "");
}

}  // namespace
}  // namespace flowkeep
