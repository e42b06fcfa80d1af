// How recovery of a dead worker's log protects itself from a power cut that follows at once. Both
// cases were found by the crash simulation (nfs/crash_simulation_test.cc).
#include <algorithm>
#include <vector>

#include "state/persistence_recording.h"
#include "state/pool_test_support.h"
#include "state/redo_record.h"

namespace flowkeep {
namespace {

using Kind = RecordedOperation::Kind;

class RedoLogTest : public testing::Test {
 protected:
  static constexpr uint64_t kPoolBytes = 5 << 20;

  void SetUp() override {
    pool = open_pool(directory, kPoolBytes);
    ASSERT_TRUE(pool && pool->attach_chain("chain", 4).ok());
    regions = Regions(pool->base(), Geometry::of(kPoolBytes));
  }
  std::vector<RecordedOperation> operations_of_recovery() {
    PersistenceRecording recording(pool->base());
    pool->persistence().observe(&recording);
    RedoLog(*pool, 0).apply_newest();
    pool->persistence().observe(nullptr);
    return recording.operations();
  }

  PoolDirectory directory;
  std::unique_ptr<Pool> pool;
  Regions regions;
};

TEST_F(RedoLogTest, ARecordIsDurableBeforeAnythingOfItIsApplied) {
  {
    FlowTable worker(*pool, 0, 0);
    open_flow(worker, 0, 1, 1);
    worker.commit({});  // and dies; of its fence nobody knows
  }
  const auto slot = static_cast<uint64_t>(regions.redo_slot(0, 1) - pool->base());
  const auto& header = *reinterpret_cast<const RedoHeader*>(regions.redo_slot(0, 1));
  const std::vector<RecordedOperation> operations = operations_of_recovery();
  const auto store = std::ranges::find(operations, Kind::kStore, &RecordedOperation::kind);
  ASSERT_NE(store, operations.end());
  const auto flush = std::find_if(operations.begin(), store, [&](const RecordedOperation& one) {
    return one.kind == Kind::kFlush && one.at == slot &&
           one.bytes >= sizeof(header) + header.payload_bytes;
  });
  ASSERT_NE(flush, store) << "the record is not flushed before the first store";
  EXPECT_NE(std::find_if(flush, store,
                         [](const RecordedOperation& one) { return one.kind == Kind::kFence; }),
            store)
      << "no fence between the flush and the first store";
}

TEST_F(RedoLogTest, WhatIsAppliedAlreadyIsNotMarkedAsChanging) {
  FlowTable worker(*pool, 0, 0);
  const RecordId id = open_flow(worker, 0, 1, 1).id;
  commit_and_apply(worker);
  const uint64_t version_word = record_line(id) * kLineBytes + offsetof(FlowRecord, last_seen_s);
  const auto operations = operations_of_recovery();
  EXPECT_TRUE(std::ranges::none_of(operations, [&](const RecordedOperation& one) {
    return one.kind == Kind::kStore && one.at == version_word;
  }));
  EXPECT_TRUE(std::ranges::any_of(operations, [&](const RecordedOperation& one) {
    return one.kind == Kind::kFlush && one.at / kLineBytes == version_word / kLineBytes;
  })) << "home, but perhaps not durable yet";
}

}  // namespace
}  // namespace flowkeep
