#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "dataplane/agent.h"

namespace flowkeep {
namespace {

class FramesTest : public testing::Test {
 protected:
  void SetUp() override { ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, ends_), 0); }
  void TearDown() override {
    for (const int end : ends_) {
      if (end >= 0) close(end);
    }
  }
  void hang_up() {
    close(ends_[0]);
    ends_[0] = -1;
  }
  int ends_[2] = {-1, -1};
};

std::string bytes_of(const std::vector<std::string>& messages) {
  std::string bytes;
  for (const std::string& message : messages) {
    const auto length = static_cast<uint32_t>(message.size());
    bytes.append(reinterpret_cast<const char*>(&length), sizeof(length));
    bytes += message;
  }
  return bytes;
}

const std::vector<std::string> kMessages = {"first", "", std::string("\0\xff\n", 3),
                                            std::string(300, 'x'), "last"};

TEST_F(FramesTest, MessagesComeOutAsTheyWentIn) {
  for (const std::string& message : kMessages) ASSERT_TRUE(send_frame(ends_[0], message));
  std::string input;
  const size_t all = bytes_of(kMessages).size();
  while (input.size() < all) ASSERT_TRUE(receive_frames(ends_[1], input, Wait::kForInput));
  for (const std::string& message : kMessages) EXPECT_EQ(take_frame(input), message);
  EXPECT_EQ(take_frame(input), std::nullopt);
  EXPECT_TRUE(input.empty());
}

// The stream may be cut anywhere, within a length too.
TEST_F(FramesTest, EveryCutOfTheStreamGivesTheSameMessages) {
  const std::string bytes = bytes_of(kMessages);
  for (size_t part = 1; part <= bytes.size(); ++part) {
    std::string input;
    std::vector<std::string> taken;
    for (size_t at = 0; at < bytes.size(); at += part) {
      input += bytes.substr(at, part);
      while (std::optional<std::string> frame = take_frame(input)) taken.push_back(*frame);
    }
    ASSERT_EQ(taken, kMessages) << "in parts of " << part;
    ASSERT_TRUE(input.empty());
  }
}

TEST_F(FramesTest, AnIncompleteFrameStaysInTheInput) {
  const std::string bytes = bytes_of({"message"});
  for (size_t length = 0; length < bytes.size(); ++length) {
    std::string input = bytes.substr(0, length);
    ASSERT_EQ(take_frame(input), std::nullopt) << length;
    ASSERT_EQ(input, bytes.substr(0, length));
  }
}

TEST_F(FramesTest, ALengthBeyondWhatCameIsNotTaken) {
  std::string input = "\xff\xff\xff\xff message";
  EXPECT_EQ(take_frame(input), std::nullopt);
}

TEST_F(FramesTest, ReceivesWhatIsThereThenTheEnd) {
  ASSERT_TRUE(send_frame(ends_[0], "farewell"));
  hang_up();
  std::string input;
  ASSERT_TRUE(receive_frames(ends_[1], input, Wait::kForInput));
  EXPECT_EQ(take_frame(input), "farewell");
  EXPECT_FALSE(receive_frames(ends_[1], input, Wait::kForInput));
}

// Not even a signal: the supervisor must outlive its agent.
TEST_F(FramesTest, SendingToAPeerThatIsGoneSaysSo) {
  hang_up();
  EXPECT_FALSE(send_frame(ends_[1], "anybody there?"));
}

TEST_F(FramesTest, WhoDoesNotWaitSeesNothingUntilItIsThere) {
  std::string input;
  EXPECT_TRUE(receive_frames(ends_[1], input, Wait::kNot));
  EXPECT_TRUE(input.empty());
  ASSERT_TRUE(send_frame(ends_[0], "late"));
  EXPECT_TRUE(receive_frames(ends_[1], input, Wait::kNot));
  EXPECT_EQ(take_frame(input), "late");
}

}  // namespace
}  // namespace flowkeep
