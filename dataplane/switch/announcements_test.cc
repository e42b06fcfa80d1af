#include "dataplane/switch/announcements.h"

#include <gtest/gtest.h>

namespace flowkeep {
namespace {

const std::vector<Be32> kOne = {Be32::from_host(0xcb007101)};
const std::vector<Be32> kTwo = {Be32::from_host(0xcb007101), Be32::from_host(0xcb00710a)};

// Times at which the addresses are announced, asked every 50 ms.
std::vector<uint64_t> times(Announcements& announcements, bool link_up,
                            const std::vector<Be32>& addresses, uint64_t begin_ms,
                            uint64_t end_ms) {
  std::vector<uint64_t> found;
  for (uint64_t now_ms = begin_ms; now_ms <= end_ms; now_ms += 50) {
    if (announcements.due(link_up, addresses, now_ms)) found.push_back(now_ms);
  }
  return found;
}

using Times = std::vector<uint64_t>;

TEST(Announcements, TwiceWhenTheLinkComesUpAndNotWhileItIsDown) {
  Announcements announcements;
  EXPECT_EQ(times(announcements, false, kOne, 0, 10'000), Times{});
  EXPECT_EQ(times(announcements, true, kOne, 10'050, 20'000), (Times{10'050, 12'050}));
  EXPECT_EQ(times(announcements, false, kOne, 20'050, 20'100), Times{});
  EXPECT_EQ(times(announcements, true, kOne, 20'150, 30'000), (Times{20'150, 22'150}));
}

TEST(Announcements, AgainWhenAnAddressIsAddedButNotWhenOneGoes) {
  Announcements announcements;
  times(announcements, true, kOne, 0, 10'000);
  EXPECT_EQ(times(announcements, true, kTwo, 10'000, 20'000), (Times{10'000, 12'000}));
  EXPECT_EQ(times(announcements, true, kOne, 20'000, 30'000), Times{});
  EXPECT_EQ(times(announcements, true, kTwo, 30'000, 40'000), (Times{30'000, 32'000}));
}

TEST(Announcements, LinkThatGoesDownInBetweenBeginsAnew) {
  Announcements announcements;
  EXPECT_EQ(times(announcements, true, kOne, 0, 1000), Times{0});
  EXPECT_EQ(times(announcements, false, kOne, 1050, 2500), Times{});
  EXPECT_EQ(times(announcements, true, kOne, 2550, 9000), (Times{2550, 4550}));
}

}  // namespace
}  // namespace flowkeep
