#include "dataplane/pktgen/pcap_replay.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "dataplane/pktgen/received_frame.h"

namespace flowkeep::pktgen {
namespace {

constexpr MacAddress kOwn = {2, 0, 0, 0, 0, 1};
constexpr MacAddress kGateway = {2, 0, 0, 0, 0, 2};
constexpr uint32_t kEthernet = 1, kRawIp = 101;

std::vector<uint8_t> frame_of(uint8_t protocol, uint32_t flow) {
  std::vector<uint8_t> frame(shortest_frame_bytes(protocol) + flow);
  FrameBuilder(protocol, frame.size(), {6, 6, 6, 6, 6, 6}, {8, 8, 8, 8, 8, 8})
      .build(frame.data(),
             {*parse_address("10.1.2.3"), *parse_address("192.0.2.1"), Be16::from_host(1000),
              Be16::from_host(7)},
             {1, Phase::kMeasured, flow, 0, 0});
  return frame;
}

// A capture file of its own for each test, removed with it.
class PcapReplayTest : public testing::Test {
 protected:
  PcapReplayTest() {
    const int descriptor = mkstemp(path_);
    file_ = fdopen(descriptor, "wb");
  }
  ~PcapReplayTest() override {
    std::fclose(file_);
    unlink(path_);
  }

  void put32(uint32_t value) { std::fwrite(&value, 4, 1, file_); }
  void header(uint32_t link) {
    for (const uint32_t value : {0xa1b2c3d4u, 0x00040002u, 0u, 0u, 65535u, link}) put32(value);
  }
  void packet(const std::vector<uint8_t>& bytes, size_t missing = 0) {
    put32(0);
    put32(0);
    put32(static_cast<uint32_t>(bytes.size()));
    put32(static_cast<uint32_t>(bytes.size() + missing));
    std::fwrite(bytes.data(), 1, bytes.size(), file_);
  }
  Result<PcapReplay> open(uint64_t loops, std::optional<Prefix> source = {},
                          std::optional<Prefix> destination = {}) {
    std::fflush(file_);
    return PcapReplay::open(path_, loops, {kGateway, kOwn, source, destination});
  }

  char path_[32] = "/tmp/flowkeep-replay-XXXXXX";
  FILE* file_;
};

std::vector<uint8_t> next(PcapReplay& replay) {
  std::vector<uint8_t> frame(kLongestFrameBytes);
  frame.resize(replay.next(frame.data(), 0));
  return frame;
}

TEST_F(PcapReplayTest, ReplaysUnchangedButForTheDestination) {
  header(kEthernet);
  auto first = frame_of(kProtocolUdp, 0), second = frame_of(kProtocolTcp, 1);
  packet(first);
  packet(second);
  auto replay = open(2);
  ASSERT_TRUE(replay.ok()) << replay.error().text();
  for (auto* frame : {&first, &second}) std::copy(kGateway.begin(), kGateway.end(), frame->begin());
  for (int loop = 0; loop < 2; ++loop) {
    EXPECT_EQ(next(*replay), first);
    EXPECT_EQ(next(*replay), second);
  }
  EXPECT_TRUE(next(*replay).empty());
  replay->take_back(1);
  EXPECT_EQ(next(*replay), second);
}

TEST_F(PcapReplayTest, RewritesPrefixesAndMendsChecksums) {
  header(kEthernet);
  packet(frame_of(kProtocolUdp, 0));
  packet(frame_of(kProtocolTcp, 0));
  auto replay = open(1, parse_prefix("172.16.0.0/16"), parse_prefix("198.51.100.7/32"));
  ASSERT_TRUE(replay.ok());
  for (int count = 0; count < 2; ++count) {
    const auto frame = next(*replay);
    const auto read = read_tagged(frame);
    ASSERT_TRUE(read.has_value());
    EXPECT_TRUE(checksums_valid(frame, *read));
    EXPECT_EQ(address_text(read->source), "172.16.2.3");
    Be32 destination;
    std::memcpy(&destination, frame.data() + kIpv4Offset + 16, 4);
    EXPECT_EQ(address_text(destination), "198.51.100.7");
  }
}

TEST_F(PcapReplayTest, GivesRawPacketsAnEthernetHeader) {
  header(kRawIp);
  auto frame = frame_of(kProtocolUdp, 0);
  packet({frame.begin() + kEthernetBytes, frame.end()});
  auto replay = open(1);
  ASSERT_TRUE(replay.ok());
  std::copy(kGateway.begin(), kGateway.end(), frame.begin());
  std::copy(kOwn.begin(), kOwn.end(), frame.begin() + 6);
  EXPECT_EQ(next(*replay), frame);
}

TEST_F(PcapReplayTest, LeavesOutWhatIsCutShortOrTooLong) {
  header(kEthernet);
  packet(frame_of(kProtocolUdp, 0), 10);
  packet(std::vector<uint8_t>(kLongestFrameBytes + 1));
  packet(frame_of(kProtocolUdp, 3));
  auto replay = open(0);
  ASSERT_TRUE(replay.ok());
  EXPECT_EQ(replay->packets(), 1u);
  EXPECT_EQ(replay->left_out(), 2u);
  for (int count = 0; count < 5; ++count) EXPECT_EQ(next(*replay).size(), 63u);
}

TEST_F(PcapReplayTest, RefusesWhatIsNoUsableCapture) {
  EXPECT_FALSE(PcapReplay::open("/nonexistent.pcap", 1, {}).ok());
  EXPECT_FALSE(open(1).ok()) << "an empty file";
  header(105);  // IEEE 802.11
  EXPECT_NE(open(1).error().text().find("accepted: EN10MB"), std::string::npos);
}

TEST_F(PcapReplayTest, RefusesACaptureWithoutPackets) {
  header(kEthernet);
  EXPECT_FALSE(open(1).ok());
}

TEST_F(PcapReplayTest, RefusesADamagedCapture) {
  header(kEthernet);
  packet(frame_of(kProtocolUdp, 0));
  put32(1);
  EXPECT_NE(open(1).error().text().find("damaged"), std::string::npos);
}

}  // namespace
}  // namespace flowkeep::pktgen
