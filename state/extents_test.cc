// Extents without crashes (state/crash_test.cc has those): what a burst sees, what a commit leaves,
// which blocks are used again, a full pool, and damage.
#include "state/extents.h"

#include <cstring>
#include <map>
#include <vector>

#include "state/pool_test_support.h"

namespace flowkeep {
namespace {

constexpr uint64_t kMiB = 1024 * 1024;
using Bytes = std::vector<std::byte>;

Bytes content_of(size_t bytes, uint64_t seed) {
  std::mt19937_64 random(seed);
  Bytes content(bytes);
  for (std::byte& byte : content) byte = static_cast<std::byte>(random());
  return content;
}

Bytes read(const FlowTable& table, RecordId id) {
  const std::span<const std::byte> content = table.extent(id);
  return {content.begin(), content.end()};
}

class ExtentsTest : public testing::Test {
 protected:
  void SetUp() override {
    pool = open_pool(directory, 64 * kMiB);
    ASSERT_TRUE(pool && pool->attach_chain("chain", 64).ok());
    regions = Regions(pool->base(), Geometry::of(pool->bytes()));
  }
  RecordId flow(FlowTable& table, uint32_t n, uint32_t bucket = 0) {
    const RecordId id = open_flow(table, bucket, n, n).id;
    commit_and_apply(table);
    return id;
  }
  uint32_t pages(uint32_t bucket = 0) const { return regions.bucket(0, bucket).extent_pages; }

  PoolDirectory directory;
  std::unique_ptr<Pool> pool;
  Regions regions;
};

TEST_F(ExtentsTest, HoldsContentOfEachSize) {
  FlowTable table(*pool, 0, 0);
  const RecordId id = flow(table, 1);
  EXPECT_TRUE(table.extent(id).empty());
  for (const size_t bytes : {1, 7, 8, 9, 559, 560, 561, 1135, 1136, 1137, 4096, 16383, 16384}) {
    SCOPED_TRACE(bytes);
    const Bytes content = content_of(bytes, bytes);
    ASSERT_EQ(table.set_extent(id, content), OpenStatus::kOk);
    EXPECT_EQ(read(table, id), content);
    commit_and_apply(table);
    EXPECT_EQ(read(table, id), content);
    EXPECT_EQ(page_leak(*pool), "");
  }
  EXPECT_EQ(extent_blocks(560), 1u);
  EXPECT_EQ(extent_blocks(561), 2u);
  EXPECT_EQ(table.set_extent(id, {}), OpenStatus::kOk);
  commit_and_apply(table);
  EXPECT_TRUE(table.extent(id).empty());
  EXPECT_EQ(table.record(id).extent, 0u);
  EXPECT_EQ(page_leak(*pool), "");
}

TEST_F(ExtentsTest, ABurstSeesItsOwnContentAndOthersSeeTheOldUntilApply) {
  FlowTable table(*pool, 0, 0);
  FlowTable other(*pool, 0, 1);
  const RecordId id = flow(table, 1);
  const Bytes old_content = content_of(3000, 1);
  const Bytes between = content_of(5000, 2);
  const Bytes new_content = content_of(900, 3);
  ASSERT_EQ(table.set_extent(id, old_content), OpenStatus::kOk);
  commit_and_apply(table);
  ASSERT_EQ(table.set_extent(id, between), OpenStatus::kOk);
  ASSERT_EQ(table.set_extent(id, new_content), OpenStatus::kOk);
  EXPECT_EQ(read(table, id), new_content);
  EXPECT_EQ(read(other, id), old_content);
  table.commit({});
  EXPECT_EQ(read(other, id), old_content);
  table.apply();
  EXPECT_EQ(read(other, id), new_content);
  EXPECT_EQ(page_leak(*pool), "");
}

TEST_F(ExtentsTest, AnAbandonedBurstLeavesTheOldContentAndNoPage) {
  FlowTable table(*pool, 0, 0);
  const RecordId id = flow(table, 1);
  const Bytes content = content_of(2000, 1);
  ASSERT_EQ(table.set_extent(id, content), OpenStatus::kOk);
  commit_and_apply(table);
  const uint64_t free_before = pool->free_pages();
  ASSERT_EQ(table.set_extent(id, content_of(16384, 2)), OpenStatus::kOk);
  table.abandon();
  EXPECT_EQ(read(table, id), content);
  EXPECT_EQ(pool->free_pages(), free_before);
  EXPECT_EQ(page_leak(*pool), "");
}

// Until the commit the old bytes may be needed again: by whoever recovers.
TEST_F(ExtentsTest, ABlockThatABurstFreesIsNotWrittenInThatBurst) {
  FlowTable table(*pool, 0, 0);
  const RecordId first = flow(table, 1);
  const RecordId second = flow(table, 2);
  ASSERT_EQ(table.set_extent(first, content_of(4000, 1)), OpenStatus::kOk);
  commit_and_apply(table);
  const uint32_t block = table.record(first).extent;
  const Bytes bytes_before(regions.block(block), regions.block(block) + kBlockBytes);
  ASSERT_EQ(table.set_extent(first, {}), OpenStatus::kOk);
  for (int i = 0; i < 20; ++i) {
    ASSERT_EQ(table.set_extent(second, content_of(4000, 2)), OpenStatus::kOk);
  }
  EXPECT_EQ(std::memcmp(regions.block(block), bytes_before.data(), kBlockBytes), 0);
  commit_and_apply(table);
  EXPECT_EQ(page_leak(*pool), "");
}

TEST_F(ExtentsTest, BlocksAreUsedAgain) {
  FlowTable table(*pool, 0, 0);
  const RecordId id = flow(table, 1);
  for (uint64_t i = 0; i < 500; ++i) {
    ASSERT_EQ(table.set_extent(id, content_of(1 + i * 31 % 16384, i)), OpenStatus::kOk);
    commit_and_apply(table);
  }
  // The content there is and the one that replaces it.
  EXPECT_LE(pages(), 2 * Extents::claims_for(kMaxExtentBytes) + 1);
  table.close(id);
  commit_and_apply(table);
  EXPECT_EQ(page_leak(*pool), "");
  const uint32_t pages_before = pages();
  const RecordId next = flow(table, 2);
  EXPECT_TRUE(table.extent(next).empty());
  ASSERT_EQ(table.set_extent(next, content_of(16384, 1)), OpenStatus::kOk);
  commit_and_apply(table);
  EXPECT_EQ(pages(), pages_before);
}

TEST_F(ExtentsTest, HasRoomKeepsItsPromise) {
  FlowTable table(*pool, 0, 0);
  std::vector<RecordId> ids;
  for (uint32_t n = 0; n < 64; ++n) ids.push_back(flow(table, n, n));
  // 64 of the greatest need more pages than a burst may claim: the burst ends early.
  EXPECT_FALSE(table.has_room(64, kMaxExtentBytes));
  uint32_t changed = 0;
  while (changed < 64 && table.has_room(1, kMaxExtentBytes)) {
    ASSERT_EQ(table.set_extent(ids[changed], content_of(kMaxExtentBytes, changed)),
              OpenStatus::kOk);
    ++changed;
  }
  EXPECT_GE(changed, 30u);
  commit_and_apply(table);
  // As many as fill a write set, and no more: what is promised is as much as can be kept.
  constexpr uint32_t kMost = 59;
  EXPECT_TRUE(table.has_room(kMost, 2048));
  EXPECT_FALSE(table.has_room(kMost + 1, 2048));
  for (uint32_t n = 0; n < kMost; ++n) {
    ASSERT_EQ(table.set_extent(ids[n], content_of(2048, n)), OpenStatus::kOk);
    table.stage(ids[n]).revision = 7;
  }
  commit_and_apply(table);
  for (uint32_t n = 0; n < kMost; ++n) EXPECT_EQ(read(table, ids[n]), content_of(2048, n));
  EXPECT_EQ(page_leak(*pool), "");
}

TEST_F(ExtentsTest, DamageReadsAsNone) {
  FlowTable table(*pool, 0, 0);
  const RecordId id = flow(table, 1);
  const Bytes content = content_of(1500, 1);
  ASSERT_EQ(table.set_extent(id, content), OpenStatus::kOk);
  commit_and_apply(table);
  const uint32_t first = table.record(id).extent;
  ExtentPageHead& head = regions.extent_head(block_page(first));
  const uint32_t second = head.next[block_place(first)];
  const auto damaged = [&](std::byte* at, size_t bytes) {
    const Bytes before(at, at + bytes);
    for (size_t i = 0; i < bytes; ++i) at[i] ^= std::byte{0xff};
    const bool none = table.extent(id).empty();
    std::memcpy(at, before.data(), bytes);
    return none;
  };
  for (size_t at = 0; at < kBlockBytes; ++at) {
    EXPECT_TRUE(damaged(regions.block(first) + at, 1)) << at;
    EXPECT_TRUE(damaged(regions.block(second) + at, 1)) << at;
  }
  EXPECT_TRUE(damaged(reinterpret_cast<std::byte*>(&head.next[block_place(first)]), 4));
  EXPECT_TRUE(damaged(reinterpret_cast<std::byte*>(&regions.record(id).extent), 4));
  EXPECT_EQ(read(table, id), content);
  // Another flow's extent is none of this one.
  const RecordId other = flow(table, 2);
  table.stage(other).extent = first;
  EXPECT_TRUE(table.extent(other).empty());
  table.abandon();
}

TEST_F(ExtentsTest, DroppingTheChainGivesThePagesBack) {
  FlowTable table(*pool, 0, 0);
  for (uint32_t n = 0; n < 100; ++n) {
    const RecordId id = flow(table, n, n % 64);
    ASSERT_EQ(table.set_extent(id, content_of(5000, n)), OpenStatus::kOk);
    commit_and_apply(table);
  }
  EXPECT_EQ(page_leak(*pool), "");
  ASSERT_TRUE(pool->drop_chain("chain").ok());
  EXPECT_EQ(pool->free_pages(), pool->total_pages());
}

TEST(ExtentsInAFullPool, AreRefusedAndHarmNobody) {
  PoolDirectory directory;
  auto pool = open_pool(directory, Pool::minimum_bytes());
  ASSERT_TRUE(pool && pool->attach_chain("chain", 4).ok());
  FlowTable table(*pool, 0, 0);
  std::vector<RecordId> ids;
  for (uint32_t n = 0; n < 60; ++n) {
    ids.push_back(open_flow(table, n % 4, n, n).id);
    commit_and_apply(table);
  }
  size_t held = 0;
  for (OpenStatus status = OpenStatus::kOk; status == OpenStatus::kOk; ++held) {
    ASSERT_LT(held, ids.size());
    status = table.set_extent(ids[held], content_of(8000, held));
    ASSERT_TRUE(status == OpenStatus::kOk || status == OpenStatus::kPoolFull);
    commit_and_apply(table);
    if (status == OpenStatus::kPoolFull) break;
  }
  EXPECT_GT(held, 10u);
  EXPECT_EQ(page_leak(*pool), "");
  for (size_t n = 0; n < held; ++n) EXPECT_EQ(read(table, ids[n]), content_of(8000, n)) << n;
  EXPECT_TRUE(table.extent(ids[held]).empty());
  // Established flows go on, with what they have.
  EXPECT_EQ(find_inside(table, held % 4, static_cast<uint32_t>(held)), ids[held]);
  // What one gives back, another of its bucket may have.
  table.close(ids[held - 4]);
  commit_and_apply(table);
  EXPECT_EQ(table.set_extent(ids[held], content_of(8000, 9)), OpenStatus::kOk);
  commit_and_apply(table);
  EXPECT_EQ(read(table, ids[held]), content_of(8000, 9));
  EXPECT_EQ(page_leak(*pool), "");
}

// Random openings, extents, closings, commits, abandons and reopenings in several buckets against a
// plain map.
TEST(ExtentsProperty, BehaveLikeAMap) {
  constexpr uint32_t kBuckets = 4;
  const uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  PoolDirectory directory;
  auto pool = open_pool(directory, 16 * kMiB);
  ASSERT_TRUE(pool && pool->attach_chain("chain", kBuckets).ok());
  auto table = std::make_unique<FlowTable>(*pool, 0, 0);
  std::map<uint32_t, Bytes> committed;
  std::map<uint32_t, Bytes> staged;
  for (int step = 0; step < 20'000; ++step) {
    const auto n = static_cast<uint32_t>(random() % 200);
    if (!table->has_room(2, kMaxExtentBytes)) commit_and_apply(*table), committed = staged;
    const RecordId id = find_inside(*table, n % kBuckets, n);
    ASSERT_EQ(id != 0, staged.contains(n));
    if (id == 0) {
      ASSERT_EQ(open_flow(*table, n % kBuckets, n, n).status, OpenStatus::kOk);
      staged[n] = {};
    } else if (random() % 8 == 0) {
      table->close(id);
      staged.erase(n);
    } else {
      ASSERT_EQ(read(*table, id), staged[n]);
      const size_t bytes = random() % 4 == 0 ? 0 : random() % (random() % 8 == 0 ? 16'384 : 2'000);
      staged[n] = content_of(bytes, random());
      ASSERT_EQ(table->set_extent(id, staged[n]), OpenStatus::kOk);
      ASSERT_EQ(read(*table, id), staged[n]);
    }
    const uint64_t end = random() % 1'000;
    if (end < 200) {
      commit_and_apply(*table);
      committed = staged;
    } else if (end < 220) {
      table->abandon();
      staged = committed;
    } else if (end == 220) {
      table.reset();
      pool.reset();
      pool = open_pool(directory, 16 * kMiB);
      ASSERT_TRUE(pool);
      pool->recover_all();
      staged = committed;
      ASSERT_EQ(page_leak(*pool), "");
      table = std::make_unique<FlowTable>(*pool, 0, 0);
    }
  }
  commit_and_apply(*table);
  EXPECT_EQ(page_leak(*pool), "");
  for (const auto& [n, content] : staged) {
    EXPECT_EQ(read(*table, find_inside(*table, n % kBuckets, n)), content) << n;
  }
}

}  // namespace
}  // namespace flowkeep
