#include "dataplane/switch/neighbours.h"

#include <gtest/gtest.h>

#include <utility>
#include <vector>

namespace flowkeep {
namespace {

using Answer = Neighbours::Answer;

constexpr Mac kMac{{2, 0, 0, 0, 0, 1}};
constexpr Mac kOtherMac{{2, 0, 0, 0, 0, 2}};
constexpr uint64_t kStartMs = 1'000'000;

Be32 host(uint32_t n) {
  return Be32::from_host(0x0a000000 + n);
}
WaitingPacket packet(uintptr_t n) {
  return reinterpret_cast<WaitingPacket>(n);
}

class NeighboursTest : public testing::Test {
 protected:
  Answer resolve(Be32 address, uint64_t now_ms, uintptr_t n = 1) {
    return table_.resolve(address, now_ms, packet(n), mac_);
  }
  // Times at which requests for the address would be sent while the switch ticks until `end_ms`.
  std::vector<uint64_t> requests_until(uint64_t begin_ms, uint64_t end_ms) {
    std::vector<uint64_t> times;
    for (uint64_t now_ms = begin_ms; now_ms <= end_ms; now_ms += 100) {
      const size_t before = requests_.size();
      table_.tick(now_ms);
      for (size_t i = before; i < requests_.size(); ++i) times.push_back(now_ms - begin_ms);
    }
    return times;
  }

  std::vector<Be32> requests_;
  std::vector<std::pair<WaitingPacket, std::array<uint8_t, 6>>> sent_;
  std::vector<WaitingPacket> given_up_;
  Mac mac_;
  Neighbours table_{
      {.send_request = [this](Be32 address) { requests_.push_back(address); },
       .send = [this](WaitingPacket p, const Mac& mac) { sent_.emplace_back(p, mac.bytes); },
       .give_up = [this](WaitingPacket p) { given_up_.push_back(p); }}};
};

TEST_F(NeighboursTest, FirstPacketAsksAndTheAnswerSendsWhatWaitedInOrder) {
  EXPECT_EQ(resolve(host(1), kStartMs, 1), Answer::kWaiting);
  EXPECT_EQ(resolve(host(1), kStartMs + 1, 2), Answer::kWaiting);
  EXPECT_EQ(resolve(host(1), kStartMs + 2, 3), Answer::kWaiting);
  EXPECT_EQ(requests_, std::vector{host(1)});
  EXPECT_EQ(table_.waiting(), 3U);

  table_.learn(host(1), kMac, true, kStartMs + 5);
  ASSERT_EQ(sent_.size(), 3U);
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(sent_[i], std::pair(packet(i + 1), kMac.bytes));
  EXPECT_EQ(table_.waiting(), 0U);
  EXPECT_TRUE(given_up_.empty());

  EXPECT_EQ(resolve(host(1), kStartMs + 6, 4), Answer::kResolved);
  EXPECT_EQ(mac_.bytes, kMac.bytes);
  EXPECT_EQ(sent_.size(), 3U);  // the caller sends it
}

TEST_F(NeighboursTest, RequestsGoOncePerSecondAndThenThePacketsAreGivenUp) {
  resolve(host(1), kStartMs, 1);
  resolve(host(1), kStartMs, 2);
  EXPECT_EQ(requests_until(kStartMs, kStartMs + 2900), (std::vector<uint64_t>{1000, 2000}));
  EXPECT_EQ(requests_.size(), kArpTries);
  EXPECT_TRUE(given_up_.empty());
  table_.tick(kStartMs + 3000);
  EXPECT_EQ(given_up_, (std::vector{packet(1), packet(2)}));
  EXPECT_EQ(table_.waiting(), 0U);
  EXPECT_TRUE(requests_until(kStartMs + 3100, kStartMs + 20'000).empty());
  EXPECT_EQ(given_up_.size(), 2U);
}

TEST_F(NeighboursTest, AnAddressThatNobodyHasIsRefusedForAWhile) {
  resolve(host(1), kStartMs);
  requests_until(kStartMs, kStartMs + 3000);
  const uint64_t failed_ms = kStartMs + 3000;
  EXPECT_EQ(resolve(host(1), failed_ms + 1), Answer::kFull);
  EXPECT_EQ(resolve(host(1), failed_ms + kNeighbourHoldMs - 1), Answer::kFull);
  EXPECT_EQ(requests_.size(), kArpTries);
  EXPECT_EQ(table_.waiting(), 0U);
  EXPECT_EQ(resolve(host(1), failed_ms + kNeighbourHoldMs), Answer::kWaiting);
  EXPECT_EQ(requests_.size(), kArpTries + 1);
  requests_until(failed_ms + kNeighbourHoldMs, failed_ms + kNeighbourHoldMs + 3000);
  EXPECT_EQ(requests_.size(), 2 * kArpTries);  // all tries anew
}

TEST_F(NeighboursTest, AFailedAddressThatSpeaksIsKnownAtOnce) {
  resolve(host(1), kStartMs);
  requests_until(kStartMs, kStartMs + 3000);
  table_.learn(host(1), kMac, false, kStartMs + 3100);
  EXPECT_EQ(resolve(host(1), kStartMs + 3101), Answer::kResolved);
}

TEST_F(NeighboursTest, BoundedNumberOfPacketsWaits) {
  for (uintptr_t n = 1; n <= kMaxWaitingPackets; ++n)
    ASSERT_EQ(resolve(host(1), kStartMs, n), Answer::kWaiting);
  EXPECT_EQ(resolve(host(1), kStartMs, 9999), Answer::kFull);
  EXPECT_EQ(table_.waiting(), kMaxWaitingPackets);
  EXPECT_EQ(resolve(host(2), kStartMs, 1),
            Answer::kWaiting);  // another neighbour has room of its own
  EXPECT_EQ(requests_.size(), 2U);
  table_.learn(host(1), kMac, true, kStartMs + 1);
  EXPECT_EQ(sent_.size(), kMaxWaitingPackets);
  EXPECT_EQ(table_.waiting(), 1U);
}

TEST_F(NeighboursTest, LearnsStrangersOnlyWhenSpokenTo) {
  table_.learn(host(1), kMac, false, kStartMs);
  EXPECT_EQ(resolve(host(1), kStartMs + 1), Answer::kWaiting);
  table_.learn(host(2), kMac, true, kStartMs);
  EXPECT_EQ(resolve(host(2), kStartMs + 1), Answer::kResolved);
}

TEST_F(NeighboursTest, AKnownNeighbourMayMove) {
  table_.learn(host(1), kMac, true, kStartMs);
  table_.learn(host(1), kOtherMac, false, kStartMs + 10);
  EXPECT_EQ(resolve(host(1), kStartMs + 11), Answer::kResolved);
  EXPECT_EQ(mac_.bytes, kOtherMac.bytes);
}

TEST_F(NeighboursTest, StaticEntryIsNeverAskedForNorChanged) {
  table_.add_static(host(1), kMac);
  table_.learn(host(1), kOtherMac, true, kStartMs);
  EXPECT_EQ(resolve(host(1), kStartMs + 10 * kNeighbourFreshMs), Answer::kResolved);
  EXPECT_EQ(mac_.bytes, kMac.bytes);
  table_.tick(kStartMs + 20 * kNeighbourFreshMs);
  EXPECT_TRUE(requests_.empty());
}

TEST_F(NeighboursTest, AnOldEntryIsAskedForAgainOnceASecondWhileItIsUsed) {
  table_.learn(host(1), kMac, true, kStartMs);
  EXPECT_EQ(resolve(host(1), kStartMs + kNeighbourFreshMs), Answer::kResolved);
  EXPECT_TRUE(requests_.empty());
  const uint64_t old_ms = kStartMs + kNeighbourFreshMs + 1;
  for (uint64_t after_ms = 0; after_ms <= 3500; after_ms += 10) {
    ASSERT_EQ(resolve(host(1), old_ms + after_ms), Answer::kResolved);  // trusted meanwhile
  }
  EXPECT_GE(requests_.size(), 3U);
  EXPECT_LE(requests_.size(), 4U);
  const size_t asked = requests_.size();
  table_.learn(host(1), kMac, true, old_ms + 3600);
  for (uint64_t after_ms = 3600; after_ms <= 6000; after_ms += 10)
    resolve(host(1), old_ms + after_ms);
  EXPECT_EQ(requests_.size(), asked);
}

TEST_F(NeighboursTest, AFullTableRefusesNewAddressesAndKeepsTheOld) {
  for (uint32_t n = 0; n < kMaxNeighbours; ++n) table_.learn(host(n), kMac, true, kStartMs);
  const uint32_t beyond = kMaxNeighbours;
  EXPECT_EQ(resolve(host(beyond), kStartMs), Answer::kFull);
  table_.learn(host(beyond), kMac, true, kStartMs);
  table_.add_static(host(beyond), kMac);
  EXPECT_EQ(resolve(host(beyond), kStartMs), Answer::kFull);
  EXPECT_TRUE(requests_.empty());
  for (uint32_t n = 0; n < kMaxNeighbours; ++n)
    ASSERT_EQ(resolve(host(n), kStartMs), Answer::kResolved) << n;
}

// A scan fills the table; what it has asked for gives way to who speaks to us, and to others once
// nobody has answered (RFC 6583).
TEST_F(NeighboursTest, AddressesThatNobodyHasMakeRoom) {
  table_.learn(host(0), kMac, true, kStartMs);
  for (uint32_t n = 1; n < kMaxNeighbours; ++n)
    ASSERT_EQ(resolve(host(n), kStartMs, n), Answer::kWaiting);
  EXPECT_EQ(resolve(host(kMaxNeighbours), kStartMs), Answer::kFull);
  table_.learn(host(kMaxNeighbours), kMac, true, kStartMs);
  EXPECT_EQ(resolve(host(kMaxNeighbours), kStartMs), Answer::kResolved);
  EXPECT_EQ(given_up_.size(), 1U);

  requests_until(kStartMs, kStartMs + 3000);
  EXPECT_EQ(given_up_.size(), kMaxNeighbours - 1);
  EXPECT_EQ(table_.waiting(), 0U);
  const uint64_t later_ms = kStartMs + 3000 + kNeighbourHoldMs;
  EXPECT_EQ(resolve(host(kMaxNeighbours + 1), later_ms - 1), Answer::kFull);
  for (uint32_t n = 1; n < 1000; ++n)
    ASSERT_EQ(resolve(host(kMaxNeighbours + n), later_ms), Answer::kWaiting);
  EXPECT_EQ(resolve(host(0), later_ms), Answer::kResolved);
  EXPECT_EQ(resolve(host(kMaxNeighbours), later_ms), Answer::kResolved);
}

TEST_F(NeighboursTest, NeighboursThatNobodySendsToMakeRoom) {
  constexpr uint32_t kUsed = 10;
  for (uint32_t n = 0; n < kMaxNeighbours; ++n) table_.learn(host(n), kMac, true, kStartMs);
  for (uint64_t after_ms = 0; after_ms <= kNeighbourUnusedMs; after_ms += 10'000) {
    ASSERT_EQ(resolve(host(kUsed), kStartMs + after_ms), Answer::kResolved);
    ASSERT_EQ(resolve(host(kMaxNeighbours), kStartMs + after_ms), Answer::kFull);
  }
  const uint64_t later_ms = kStartMs + kNeighbourUnusedMs + 1;
  for (uint32_t n = kMaxNeighbours; n < 2 * kMaxNeighbours - 1; ++n)
    ASSERT_EQ(resolve(host(n), later_ms, n), Answer::kWaiting) << n;
  EXPECT_EQ(resolve(host(2 * kMaxNeighbours), later_ms), Answer::kFull);
  EXPECT_EQ(resolve(host(kUsed), later_ms), Answer::kResolved);
}

TEST_F(NeighboursTest, BoundedNumberOfPacketsWaitsInAll) {
  for (uint32_t n = 0; n < kMaxWaitingInAll; ++n)
    ASSERT_EQ(resolve(host(n % 100), kStartMs, n + 1), Answer::kWaiting);
  EXPECT_EQ(resolve(host(1), kStartMs, 1), Answer::kFull);
}

// RFC 4861 section 7.2.5.
TEST_F(NeighboursTest, WordOfMouthConfirmsButDoesNotReplace) {
  table_.confirm(host(1), kMac, kStartMs);
  EXPECT_EQ(resolve(host(1), kStartMs, 1), Answer::kWaiting);  // it made no entry
  table_.confirm(host(1), kMac, kStartMs + 1);
  EXPECT_EQ(sent_.size(), 1U);
  requests_.clear();
  table_.confirm(host(1), kOtherMac, kStartMs + 1000);
  EXPECT_EQ(resolve(host(1), kStartMs + 1001), Answer::kResolved);
  EXPECT_EQ(mac_.bytes, kMac.bytes);
  EXPECT_EQ(requests_.size(), 1U);  // but it is asked
}

TEST_F(NeighboursTest, WordOfMouthCastsDoubtInTheFirstMinuteToo) {
  table_.learn(host(1), kMac, true, 1000);
  table_.confirm(host(1), kOtherMac, 2000);
  EXPECT_EQ(resolve(host(1), 2001), Answer::kResolved);
  EXPECT_EQ(requests_.size(), 1U);
}

TEST(Ipv6Neighbours, EveryAddressKeepsItsOwnMac) {
  Ipv6Neighbours table({.send_request = [](const Ipv6Address&) {},
                        .send = [](WaitingPacket, const Mac&) {},
                        .give_up = [](WaitingPacket) {}});
  const auto address = [](size_t n) {
    Ipv6Address made = {0x20, 0x01, 0x0d, 0xb8};
    made[n % 2 == 0 ? 14 : 6] = static_cast<uint8_t>(n >> 8);
    made[n % 2 == 0 ? 15 : 7] = static_cast<uint8_t>(n);
    return made;
  };
  const auto mac = [](size_t n) {
    return Mac{{2, 0, 0, 0, static_cast<uint8_t>(n >> 8), static_cast<uint8_t>(n)}};
  };
  for (size_t n = 0; n < kMaxNeighbours; ++n) table.learn(address(n), mac(n), true, kStartMs);
  for (size_t n = 0; n < kMaxNeighbours; ++n) {
    Mac found;
    ASSERT_EQ(table.resolve(address(n), kStartMs, packet(1), found),
              Ipv6Neighbours::Answer::kResolved);
    ASSERT_EQ(found, mac(n)) << n;
  }
}

// Addresses that share a place in the table are told apart.
TEST_F(NeighboursTest, EveryAddressOfALargeSubnetKeepsItsOwnMac) {
  for (uint32_t n = 0; n < kMaxNeighbours; ++n) {
    table_.learn(host(n << 12),
                 {{2, 0, 0, 0, static_cast<uint8_t>(n >> 8), static_cast<uint8_t>(n)}}, true,
                 kStartMs);
  }
  for (uint32_t n = 0; n < kMaxNeighbours; ++n) {
    ASSERT_EQ(resolve(host(n << 12), kStartMs), Answer::kResolved);
    ASSERT_EQ(mac_.bytes, (std::array<uint8_t, 6>{2, 0, 0, 0, static_cast<uint8_t>(n >> 8),
                                                  static_cast<uint8_t>(n)}))
        << n;
  }
}

}  // namespace
}  // namespace flowkeep
