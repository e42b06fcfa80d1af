#include "dataplane/switch/vlan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace flowkeep {
namespace {

using Bytes = std::vector<uint8_t>;

constexpr VlanTags kNone{};
constexpr VlanTags kOne{{100, 0}, 1};
constexpr VlanTags kTwo{{200, 100}, 2};

Bytes frame(const Bytes& tags) {
  Bytes made(12 + tags.size() + 2);
  std::copy(tags.begin(), tags.end(), made.begin() + 12);
  made[12 + tags.size()] = 0x08;
  return made;
}

int matched(const VlanTags& tags, const Bytes& bytes) {
  return tags.matched_bytes(bytes.data(), bytes.size());
}

const Bytes kUntagged = frame({});
const Bytes kPriority = frame({0x81, 0x00, 0xe0, 0x00});
const Bytes kTag100 = frame({0x81, 0x00, 0x60, 100});
const Bytes kTag101 = frame({0x81, 0x00, 0x00, 101});
const Bytes kTags200And100 = frame({0x88, 0xa8, 0x00, 200, 0x81, 0x00, 0x00, 100});
const Bytes kTags100And200 = frame({0x88, 0xa8, 0x00, 100, 0x81, 0x00, 0x00, 200});
const Bytes kOuterTypeLost = frame({0x81, 0x00, 0x00, 200, 0x81, 0x00, 0x00, 100});

TEST(VlanTags, PortTakesFramesWithItsTagsOnly) {
  EXPECT_EQ(matched(kNone, kUntagged), 0);
  EXPECT_EQ(matched(kNone, kPriority), 4);
  EXPECT_EQ(matched(kNone, kTag100), -1);
  EXPECT_EQ(matched(kNone, kTags200And100), -1);

  EXPECT_EQ(matched(kOne, kTag100), 4);
  for (const Bytes& other : {kUntagged, kPriority, kTag101, kTags200And100, kTags100And200})
    EXPECT_EQ(matched(kOne, other), -1);

  EXPECT_EQ(matched(kTwo, kTags200And100), 8);
  EXPECT_EQ(matched(kTwo, kOuterTypeLost), 8);
  for (const Bytes& other : {kUntagged, kPriority, kTag100, kTags100And200})
    EXPECT_EQ(matched(kTwo, other), -1);
}

TEST(VlanTags, CutOffFramesAreNobodys) {
  for (const Bytes& whole : {kTag100, kTags200And100}) {
    for (size_t length = 14; length < whole.size(); ++length) {
      const Bytes part(whole.begin(), whole.begin() + static_cast<ptrdiff_t>(length));
      for (const VlanTags& tags : {kNone, kOne, kTwo}) EXPECT_EQ(matched(tags, part), -1);
    }
  }
}

TEST(VlanTags, WrittenTagsAreThePortsOwn) {
  for (const VlanTags& tags : {kNone, kOne, kTwo}) {
    Bytes made = frame(Bytes(tags.bytes()));
    tags.write(made.data() + 12);
    EXPECT_EQ(matched(tags, made), static_cast<int>(tags.bytes()));
  }
  Bytes made = frame(Bytes(8));
  kTwo.write(made.data() + 12);
  EXPECT_EQ(made, kTags200And100);
}

}  // namespace
}  // namespace flowkeep
