#include "nfs/checksum.h"

#include <gtest/gtest.h>

#include <random>

#include "nfs/packet_builder.h"

namespace flowkeep {
namespace {

constexpr uint32_t kSeed = 20240517;

TEST(Checksum, WholeEqualsWordByWordAtEveryLength) {
  std::mt19937 random(kSeed);
  SCOPED_TRACE("seed " + std::to_string(kSeed));
  for (size_t length = 0; length < 200; ++length) {
    Bytes bytes(length);
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
    EXPECT_EQ(internet_checksum(bytes.data(), length).host(),
              naive_checksum(naive_sum(bytes.data(), length)))
        << length;
  }
}

TEST(Checksum, Rfc1071Example) {
  const Bytes bytes = {0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7};
  EXPECT_EQ(internet_checksum(bytes.data(), bytes.size()).host(), 0xffff - 0xddf2);
}

// The example of RFC 1624 section 4: its predecessor's formula gives 0xffff here.
TEST(Checksum, Rfc1624Example) {
  ChecksumDelta delta;
  delta.replace(Be16::from_host(0x5555), Be16::from_host(0x3285));
  EXPECT_EQ(delta.applied_to(Be16::from_host(0xdd2f)).host(), 0x0000);
}

// Values that drive sums to 0 and 0xffff are likely, because there the formulas differ.
uint16_t edgy(std::mt19937& random) {
  constexpr uint16_t kEdges[] = {0x0000, 0xffff, 0x0001, 0xfffe, 0x8000};
  return random() % 2 == 0 ? kEdges[random() % std::size(kEdges)] : static_cast<uint16_t>(random());
}

TEST(Checksum, IncrementalEqualsWhole) {
  std::mt19937 random(kSeed);
  SCOPED_TRACE("seed " + std::to_string(kSeed));
  for (int round = 0; round < 100000; ++round) {
    uint16_t words[6];
    for (uint16_t& word : words) word = edgy(random);
    words[0] |= 0x4500;  // a header is never all zero
    const auto checksum = [&words] {
      return internet_checksum(reinterpret_cast<const uint8_t*>(words), sizeof(words));
    };
    const Be16 before = checksum();
    ChecksumDelta delta;
    const Be16 port{edgy(random)};
    delta.replace(Be16{words[3]}, port);
    words[3] = port.raw;
    uint32_t address_before;
    std::memcpy(&address_before, &words[4], 4);
    const Be32 address{edgy(random) | static_cast<uint32_t>(edgy(random)) << 16};
    delta.replace(Be32{address_before}, address);
    std::memcpy(&words[4], &address.raw, 4);
    ASSERT_EQ(delta.applied_to(before), checksum()) << "round " << round;
  }
}

TEST(Checksum, UdpWithoutChecksumStaysWithout) {
  ChecksumDelta delta;
  delta.replace(Be16{1}, Be16{2});
  EXPECT_EQ(delta.applied_to_udp(Be16{0}).raw, 0);
}

TEST(Checksum, UdpChecksumThatBecomesZeroIsSentAsOnes) {
  ChecksumDelta delta;
  delta.replace(Be16::from_host(0x5555), Be16::from_host(0x3285));
  EXPECT_EQ(delta.applied_to_udp(Be16::from_host(0xdd2f)).raw, 0xffff);
}

}  // namespace
}  // namespace flowkeep
