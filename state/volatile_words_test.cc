// What a power cut may take away, in the smallest cases: which images are possible, and which are
// not.
#include "state/volatile_words.h"

#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <set>

namespace flowkeep {
namespace {

using Kind = RecordedOperation::Kind;

// Words at these places, all 0 at first. In a redo slot, where no word is soft.
class VolatileWordsTest : public testing::Test {
 protected:
  static constexpr uint64_t kPoolBytes = 5 << 20;

  void store(uint64_t at, uint64_t value, Kind kind = Kind::kStore) {
    const uint64_t where = base_at + at;
    words.store({kind, 0, 0, where, value}, seen[at]);
    seen[at] = value;
  }
  void flush(uint64_t at, uint8_t processor = 0) { words.flush(processor, base_at + at, 8); }

  // Every image that is drawn in many tries, as the values of these words.
  std::set<std::vector<uint64_t>> images(const std::vector<uint64_t>& places) {
    std::set<std::vector<uint64_t>> all;
    std::mt19937_64 random(1);
    for (int i = 0; i < 4'000; ++i) {
      std::map<uint64_t, uint64_t> image = seen;
      for (const LostWord& lost : words.draw(random)) image[lost.at - base_at] = lost.value;
      std::vector<uint64_t> values;
      for (const uint64_t at : places) values.push_back(image[at]);
      all.insert(values);
    }
    return all;
  }

  std::vector<std::byte> bytes = std::vector<std::byte>(kPoolBytes);
  Regions regions{bytes.data(), Geometry::of(kPoolBytes)};
  VolatileWords words{regions};
  const uint64_t base_at = Geometry::of(kPoolBytes).logs_at + sizeof(LogHeader);
  std::map<uint64_t, uint64_t> seen;
};

using Images = std::set<std::vector<uint64_t>>;

TEST_F(VolatileWordsTest, StoresOfALineMayComeInAnyOrderAndAnyOfThemMayBeMissing) {
  store(0, 1), store(8, 1);
  EXPECT_EQ(images({0, 8}), (Images{{0, 0}, {0, 1}, {1, 0}, {1, 1}}));
}

TEST_F(VolatileWordsTest, AWordMayHaveAnyOfItsValues) {
  store(0, 1), store(0, 2);
  EXPECT_EQ(images({0}), (Images{{0}, {1}, {2}}));
}

TEST_F(VolatileWordsTest, AFlushAloneIsNoPromise) {
  store(0, 1), flush(0);
  EXPECT_EQ(images({0}), (Images{{0}, {1}}));
}

TEST_F(VolatileWordsTest, AFenceMakesCertainWhatWasFlushedBefore) {
  store(0, 1), flush(0), store(0, 2), store(64, 1);
  words.fence(0);
  EXPECT_EQ(images({0, 64}), (Images{{1, 0}, {1, 1}, {2, 0}, {2, 1}}));
  flush(0), words.fence(0);
  EXPECT_EQ(images({0, 64}), (Images{{2, 0}, {2, 1}}));
  flush(64), words.fence(0);
  EXPECT_EQ(words.count().words, 0U);
}

TEST_F(VolatileWordsTest, AFenceSaysNothingOfWhatAnotherProcessorFlushed) {
  store(0, 1), flush(0, 1);
  words.fence(0);
  EXPECT_EQ(images({0}), (Images{{0}, {1}}));
  words.fence(1);
  EXPECT_EQ(images({0}), (Images{{1}}));
}

TEST_F(VolatileWordsTest, AFlushOfAnotherProcessorCoversWhatWasStoredUntilThen) {
  store(0, 1), flush(0, 1), store(8, 1), flush(0, 0);
  words.fence(1);
  EXPECT_EQ(images({0, 8}), (Images{{1, 0}, {1, 1}}));
}

TEST_F(VolatileWordsTest, AStoreThatComesLastIsNotThereWithoutThoseBefore) {
  store(0, 1), store(8, 1, Kind::kStoreLast), store(16, 1);
  EXPECT_EQ(images({0, 8, 16}),
            (Images{{0, 0, 0}, {0, 0, 1}, {1, 0, 0}, {1, 0, 1}, {1, 1, 0}, {1, 1, 1}}));
}

TEST_F(VolatileWordsTest, LinesKnowNothingOfEachOther) {
  store(0, 1), store(64, 1, Kind::kStoreLast);
  EXPECT_EQ(images({0, 64}), (Images{{0, 0}, {0, 1}, {1, 0}, {1, 1}}));
}

TEST_F(VolatileWordsTest, SoftWordsAreKnown) {
  const Geometry& geometry = regions.geometry();
  EXPECT_TRUE(is_soft_word(regions, kPageHintsAt));
  EXPECT_FALSE(is_soft_word(regions, 0));
  EXPECT_TRUE(is_soft_word(regions, geometry.logs_at + offsetof(LogHeader, applied)));
  EXPECT_FALSE(is_soft_word(regions, geometry.logs_at + offsetof(LogHeader, retired)));
  const auto page = static_cast<uint32_t>(regions.first_page());
  const uint64_t at = geometry.pages_at + offsetof(FlowRecord, last_seen_s);
  regions.page_word(page) = page_tag(PageKind::kSegment, 0, 0);
  EXPECT_FALSE(is_soft_word(regions, at));
  regions.page_word(page) = page_tag(PageKind::kRecords, 0, 0);
  EXPECT_TRUE(is_soft_word(regions, at));
  EXPECT_FALSE(is_soft_word(regions, at - 8));
  // The same of the page's last record, which does not end with the page.
  const uint64_t last = geometry.pages_at + (kRecordsPerPage - 1) * sizeof(FlowRecord);
  EXPECT_TRUE(is_soft_word(regions, last + offsetof(FlowRecord, last_seen_s)));
  EXPECT_FALSE(is_soft_word(regions, last + offsetof(FlowRecord, addresses)));
  EXPECT_TRUE(is_soft_word(regions, last + offsetof(FlowRecord, soft)));
  EXPECT_TRUE(is_soft_word(regions, last + sizeof(FlowRecord) - 8));
}

}  // namespace
}  // namespace flowkeep
