#include "dataplane/dead_letter.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>

namespace flowkeep {
namespace {

namespace fs = std::filesystem;

class DeadLetterTest : public testing::Test {
 protected:
  DeadLetterTest() {
    std::string pattern = "/tmp/flowkeep-letters-XXXXXX";
    root_ = mkdtemp(pattern.data());
  }
  ~DeadLetterTest() override { fs::remove_all(root_); }

  static DeadLetter letter(size_t bytes) {
    DeadLetter letter;
    letter.chain = "edge";
    letter.revision = 3;
    letter.signal = "SIGSEGV";
    letter.flow = {Be32::from_host(0x0a000002),
                   Be32::from_host(0xcb007102),
                   Be16::from_host(40000),
                   Be16::from_host(53),
                   17,
                   Side::kInside,
                   0};
    letter.port = 1;
    letter.arrived_unix_ns = 1'700'000'000'123'456'789ULL;
    for (size_t i = 0; i < bytes; ++i) letter.frame.push_back(static_cast<uint8_t>(i));
    return letter;
  }
  std::string contents() {
    std::ifstream file(path(), std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  std::string path() const { return root_ + "/letters/edge.pcapng"; }
  DeadLetterOffice office(uint64_t limit_bytes = 1 << 20) {
    return DeadLetterOffice(root_ + "/letters", limit_bytes, {"inside", "outside"});
  }
  std::string root_;
};

template <typename Word>
Word word_at(const std::string& bytes, size_t at) {
  Word word;
  std::memcpy(&word, bytes.data() + at, sizeof(word));
  return word;
}

TEST_F(DeadLetterTest, APacketBlockHoldsFrameTimeAndComment) {
  const std::string block = packet_block(letter(61));
  EXPECT_EQ(word_at<uint32_t>(block, 0), 6U);
  EXPECT_EQ(word_at<uint32_t>(block, 4), block.size());
  EXPECT_EQ(word_at<uint32_t>(block, 8), 1U);  // interface
  EXPECT_EQ(uint64_t{word_at<uint32_t>(block, 12)} << 32 | word_at<uint32_t>(block, 16),
            1'700'000'000'123'456'789ULL);
  EXPECT_EQ(word_at<uint32_t>(block, 20), 61U);
  EXPECT_EQ(word_at<uint32_t>(block, 24), 61U);
  EXPECT_EQ(block[28 + 60], 60);
  EXPECT_EQ(word_at<uint16_t>(block, 28 + 64), 1U);  // opt_comment, after padding
  EXPECT_NE(block.find("chain=edge revision=3 signal=SIGSEGV flow=udp 10.0.0.2:40000 > "
                       "203.0.113.2:53"),
            std::string::npos);
  EXPECT_EQ(word_at<uint32_t>(block, block.size() - 4), block.size());
}

TEST_F(DeadLetterTest, LettersOfOneChainShareAFileAndASection) {
  DeadLetterOffice post = office();
  ASSERT_EQ(post.keep(letter(60)).value(), path());
  ASSERT_TRUE(post.keep(letter(1500)).ok());
  EXPECT_EQ(contents(), section_blocks({"inside", "outside"}) + packet_block(letter(60)) +
                            packet_block(letter(1500)));
  EXPECT_EQ(whole_blocks(contents()), contents().size());
}

TEST_F(DeadLetterTest, ARestartedNodeAppendsASectionBehindWholeBlocks) {
  ASSERT_TRUE(office().keep(letter(60)).ok());
  const std::string before = contents();
  for (const size_t torn :
       {size_t{1}, size_t{11}, size_t{40}, packet_block(letter(60)).size() - 1}) {
    std::ofstream(path(), std::ios::binary) << before << packet_block(letter(60)).substr(0, torn);
    ASSERT_TRUE(office().keep(letter(99)).ok());
    EXPECT_EQ(contents(), before + section_blocks({"inside", "outside"}) + packet_block(letter(99)))
        << torn;
  }
}

TEST_F(DeadLetterTest, AFileThatIsNoneOfOursIsRefusedAndLeft) {
  fs::create_directories(root_ + "/letters");
  std::ofstream(path()) << "something else altogether";
  const auto kept = office().keep(letter(60));
  ASSERT_FALSE(kept.ok());
  EXPECT_NE(kept.error().text().find(path()), std::string::npos) << kept.error().text();
  EXPECT_EQ(contents(), "something else altogether");
}

TEST_F(DeadLetterTest, AFullFileGrowsNoMore) {
  DeadLetterOffice post = office(2000);
  ASSERT_TRUE(post.keep(letter(1000)).ok());
  const std::string before = contents();
  const auto kept = post.keep(letter(1000));
  ASSERT_FALSE(kept.ok());
  EXPECT_EQ(kept.error().field, "dead_letters.limit_mib");
  EXPECT_EQ(contents(), before);
}

TEST_F(DeadLetterTest, AFileThatWasMovedAwayIsBegunAnew) {
  DeadLetterOffice post = office();
  ASSERT_TRUE(post.keep(letter(60)).ok());
  fs::rename(path(), path() + ".old");
  ASSERT_TRUE(post.keep(letter(61)).ok());
  EXPECT_EQ(contents(), section_blocks({"inside", "outside"}) + packet_block(letter(61)));
}

TEST_F(DeadLetterTest, ADirectoryThatCannotBeMadeIsNamed) {
  const auto kept = DeadLetterOffice("/proc/none", 1 << 20, {}).keep(letter(60));
  ASSERT_FALSE(kept.ok());
  EXPECT_NE(kept.error().text().find("/proc/none/edge.pcapng"), std::string::npos);
}

}  // namespace
}  // namespace flowkeep
