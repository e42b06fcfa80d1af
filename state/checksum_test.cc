// The record checksum: a CRC-32C by the published vectors, the same by instruction and by table,
// and sensitive to every bit that must survive and to no other.
#include <gtest/gtest.h>

#include <random>
#include <string>

#include "state/record_checksum.h"

namespace flowkeep {
namespace {

// With the inversions of the published definition.
uint32_t published_crc32c(const std::string& bytes, uint32_t (*step)(uint32_t, uint64_t)) {
  uint32_t crc = ~0u;
  for (size_t at = 0; at < bytes.size(); at += sizeof(uint64_t)) {
    uint64_t word;
    std::memcpy(&word, bytes.data() + at, sizeof(word));
    crc = step(crc, word);
  }
  return ~crc;
}

TEST(Crc32c, AgreesWithTheVectorsOfRfc3720) {
  std::string ascending;
  for (char byte = 0; byte < 32; ++byte) ascending += byte;
  for (const auto step : {crc32c_word, crc32c_word_portable}) {
    EXPECT_EQ(published_crc32c(std::string(32, '\0'), step), 0x8a9136aau);
    EXPECT_EQ(published_crc32c(std::string(32, '\xff'), step), 0x62a8ab43u);
    EXPECT_EQ(published_crc32c(ascending, step), 0x46dd794eu);
  }
}

FlowRecord random_record(std::mt19937_64& random) {
  uint64_t words[sizeof(FlowRecord) / sizeof(uint64_t)];
  for (uint64_t& word : words) word = random();
  FlowRecord record;
  std::memcpy(&record, words, sizeof(record));
  return record;
}

bool is_covered(size_t byte, bool wide) {
  return byte < offsetof(FlowRecord, checksum) ||
         (byte >= offsetof(FlowRecord, revision) && byte < offsetof(FlowRecord, last_seen_s)) ||
         (byte >= offsetof(FlowRecord, hard) && byte < offsetof(FlowRecord, addresses)) ||
         (wide && byte >= offsetof(FlowRecord, addresses) && byte < offsetof(FlowRecord, soft));
}

void see_every_bit(FlowRecord& record) {
  const bool wide = record.is_wide();
  const uint32_t checksum = record_checksum(77, record);
  for (size_t byte = 0; byte < sizeof(record); ++byte) {
    for (int bit = 0; bit < 8; ++bit) {
      reinterpret_cast<uint8_t*>(&record)[byte] ^= static_cast<uint8_t>(1 << bit);
      EXPECT_EQ(record_checksum(77, record) != checksum, is_covered(byte, wide))
          << byte << " " << bit;
      reinterpret_cast<uint8_t*>(&record)[byte] ^= static_cast<uint8_t>(1 << bit);
    }
  }
  EXPECT_NE(record_checksum(78, record), checksum) << "in another record's place";
}

TEST(RecordChecksum, SeesEveryBitThatMustSurviveAndNoOther) {
  std::mt19937_64 random(1);
  for (const Family family : {Family::kIpv4, Family::kIpv6}) {
    FlowRecord record = random_record(random);
    record.inside_key.family = family;
    see_every_bit(record);
  }
  EXPECT_NE(record_checksum(77, FlowRecord{}), 0u) << "a page of zeros";
}

TEST(RecordChecksum, IsCarriedOnByChanges) {
  std::mt19937_64 random(2);
  for (int round = 0; round < 1000; ++round) {
    FlowRecord before = random_record(random);
    FlowRecord after = random_record(random);
    before.inside_key.family = after.inside_key.family =
        round % 2 == 0 ? Family::kIpv4 : Family::kIpv6;
    before.checksum = record_checksum(5, before);
    after.checksum = changed_record_checksum(before, after);
    EXPECT_EQ(after.checksum, record_checksum(5, after));
    before.hard[round % kHardStateBytes] ^= 1;  // damage that nobody has noticed yet
    after.checksum = changed_record_checksum(before, after);
    EXPECT_NE(after.checksum, record_checksum(5, after));
  }
}

}  // namespace
}  // namespace flowkeep
