// What the pool knows of the layouts of revisions: found again, extended, refused, given back, and
// whole after a death in the middle of a change.
#include "state/layout_table.h"

#include <cstring>
#include <vector>

#include "state/persistence.h"
#include "state/pool_test_support.h"

namespace flowkeep {
namespace {

// A layout that differs for each number.
StateLayout layout(uint32_t number) {
  StateLayout layout;
  layout.functions = 2;
  std::strcpy(layout.function[0].type, "meter");
  layout.function[0].version = number;
  layout.function[0].bytes = 8;
  std::strcpy(layout.function[1].type, "nat44");
  layout.function[1].offset = 8;
  layout.function[1].bytes = 8;
  return layout;
}

class LayoutTableTest : public testing::Test {
 protected:
  void SetUp() override {
    pool = open_pool(directory, 8 << 20);
    ASSERT_TRUE(pool && pool->attach_chain("chain", 4).ok());
    table = std::make_unique<LayoutTable>(*pool, 0);
  }
  std::string attach(uint32_t revision, uint32_t number, std::vector<uint32_t> in_use = {}) {
    const auto attached = table->attach(revision, layout(number), in_use);
    return attached.ok() ? "" : attached.error().text();
  }
  void open_flow_of(FlowTable& flows, uint32_t n, uint32_t revision) {
    flows.stage(open_flow(flows, n % 4, n, n).id).revision = revision;
    commit_and_apply(flows);
  }

  PoolDirectory directory;
  std::unique_ptr<Pool> pool;
  std::unique_ptr<LayoutTable> table;
};

TEST_F(LayoutTableTest, IsFoundAgainAfterARestart) {
  EXPECT_EQ(table->find(1), std::nullopt);
  EXPECT_EQ(attach(1, 1), "");
  EXPECT_EQ(attach(2, 2), "");
  EXPECT_EQ(attach(2, 2), "");
  table.reset();
  pool.reset();
  pool = open_pool(directory, 8 << 20);
  ASSERT_TRUE(pool);
  const LayoutTable again(*pool, 0);
  EXPECT_EQ(again.find(1), layout(1));
  EXPECT_EQ(again.find(2), layout(2));
  EXPECT_EQ(again.find(3), std::nullopt);
  EXPECT_EQ(again.entries(), 2u);
  EXPECT_EQ(LayoutTable(*pool, 1).find(1), std::nullopt);
  const FlowTable flows(*pool, 0, 0);
  EXPECT_EQ(flows.layout_of(2), layout(2));
}

TEST_F(LayoutTableTest, RevisionsOfOneLayoutShareAnEntry) {
  for (uint32_t revision = 1; revision <= 40; ++revision) EXPECT_EQ(attach(revision, 1), "");
  EXPECT_EQ(table->entries(), 1u);
  EXPECT_EQ(attach(41, 2), "");
  EXPECT_EQ(attach(42, 1), "");  // of the first one's layout, but beyond the second
  EXPECT_EQ(table->entries(), 3u);
  for (uint32_t revision = 1; revision <= 42; ++revision) {
    EXPECT_EQ(table->find(revision), layout(revision == 41 ? 2 : 1)) << revision;
  }
}

// The chain's revisions were numbered anew while its flows stayed in the pool.
TEST_F(LayoutTableTest, RefusesAnotherLayoutForARevision) {
  EXPECT_EQ(attach(7, 1), "");
  const std::string refusal = attach(7, 2);
  EXPECT_NE(refusal.find("chain \"chain\""), refusal.npos) << refusal;
  EXPECT_NE(refusal.find("7 keeps"), refusal.npos) << refusal;
  EXPECT_EQ(table->find(7), layout(1));
  ASSERT_TRUE(pool->drop_chain("chain").ok());
  ASSERT_TRUE(pool->attach_chain("chain", 4).ok());
  EXPECT_EQ(table->find(7), std::nullopt);
  EXPECT_EQ(attach(7, 2), "");
}

TEST_F(LayoutTableTest, EntriesThatNobodyNeedsAreUsedAgainAndTheOthersStay) {
  FlowTable flows(*pool, 0, 0);
  for (uint32_t revision = 1; revision <= 15; ++revision) EXPECT_EQ(attach(revision, revision), "");
  open_flow_of(flows, 1, 3);
  open_flow_of(flows, 2, 9);
  EXPECT_EQ(attach(16, 16, {15}), "");
  EXPECT_EQ(table->entries(), 4u);
  for (const uint32_t kept : {3, 9, 15, 16}) EXPECT_EQ(table->find(kept), layout(kept));
}

TEST_F(LayoutTableTest, RefusesWhenEachEntryIsNeeded) {
  FlowTable flows(*pool, 0, 0);
  for (uint32_t revision = 1; revision <= 15; ++revision) {
    EXPECT_EQ(attach(revision, revision), "");
    open_flow_of(flows, revision, revision);
  }
  const std::string refusal = attach(16, 16, {15});
  EXPECT_NE(refusal.find("16 is not accepted; flows of 15 other layouts"), refusal.npos) << refusal;
  for (uint32_t revision = 1; revision <= 15; ++revision) {
    EXPECT_EQ(table->find(revision), layout(revision));
  }
  // A revision of a layout that is there needs no entry of its own.
  EXPECT_EQ(attach(17, 15), "");
  flows.close(find_inside(flows, 5 % 4, 5));
  commit_and_apply(flows);
  EXPECT_EQ(attach(18, 18, {15}), "");
  EXPECT_EQ(table->find(5), std::nullopt);
}

TEST_F(LayoutTableTest, DeathInTheMiddleOfAChangeLosesNoLayout) {
  EXPECT_EQ(attach(1, 1), "");
  EXPECT_EQ(attach(3, 3), "");
  const std::vector<std::byte> before(pool->base(), pool->base() + pool->bytes());
  for (const auto& [revision, number] : {std::pair{4u, 4u}, std::pair{4u, 3u}}) {
    uint64_t operations = 0;
    for (bool was_killed = true; was_killed; ++operations) {
      std::memcpy(pool->base(), before.data(), before.size());
      KillAfter kill(operations);
      was_killed = killed(*pool, kill, [&] { EXPECT_EQ(attach(revision, number), ""); });
      ASSERT_EQ(table->find(1), layout(1)) << operations;
      ASSERT_EQ(table->find(3), layout(3)) << operations;
      const auto found = table->find(4);
      ASSERT_TRUE(!found || *found == layout(number)) << operations;
      EXPECT_EQ(attach(revision, number), "");
      EXPECT_EQ(table->find(4), layout(number));
      EXPECT_EQ(table->entries(), number == 3 ? 2u : 3u);
    }
    EXPECT_GT(operations, 60u);
  }
}

TEST_F(LayoutTableTest, ADamagedEntryIsFree) {
  EXPECT_EQ(attach(1, 1), "");
  const Regions regions(pool->base(), Geometry::of(pool->bytes()));
  auto* bytes = reinterpret_cast<std::byte*>(regions.layouts(0));
  for (size_t at = 0; at < sizeof(LayoutEntry); ++at) {
    bytes[at] ^= std::byte{1};
    EXPECT_EQ(table->find(1), std::nullopt) << at;
    bytes[at] ^= std::byte{1};
  }
  EXPECT_EQ(table->find(1), layout(1));
}

}  // namespace
}  // namespace flowkeep
