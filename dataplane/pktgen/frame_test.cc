// Frames made, frames read: builder, tag, checksums, reversal, flow set, ARP.
#include <gtest/gtest.h>

#include <numeric>
#include <random>
#include <set>
#include <tuple>
#include <vector>

#include "dataplane/pktgen/arp.h"
#include "dataplane/pktgen/checksum.h"
#include "dataplane/pktgen/frame_builder.h"
#include "dataplane/pktgen/frame_source.h"
#include "dataplane/pktgen/received_frame.h"

namespace flowkeep::pktgen {
namespace {

constexpr MacAddress kOwn = {2, 0, 0, 0, 0, 1};
constexpr MacAddress kGateway = {2, 0, 0, 0, 0, 2};

FlowEndpoints endpoints(uint16_t source_port = 1024) {
  return {*parse_address("10.0.0.100"), *parse_address("198.51.100.10"),
          Be16::from_host(source_port), Be16::from_host(7)};
}

std::vector<uint8_t> frame_of(uint8_t protocol, size_t bytes, const ProbeTag& tag,
                              uint16_t source_port = 1024) {
  const FrameBuilder builder(protocol, bytes, kOwn, kGateway);
  std::vector<uint8_t> frame(bytes, 0xee);
  builder.build(frame.data(), endpoints(source_port), tag);
  return frame;
}

TEST(Checksum, OfTheExampleInRfc1071) {
  const uint8_t bytes[] = {0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7};
  EXPECT_EQ(fold(add_bytes(0, bytes, sizeof(bytes))), Be16::from_host(0xddf2).raw);
}

TEST(Checksum, OfAnOddNumberOfBytesIsPaddedWithZero) {
  const uint8_t odd[] = {0x12, 0x34, 0x56};
  const uint8_t even[] = {0x12, 0x34, 0x56, 0x00};
  EXPECT_EQ(fold(add_bytes(0, odd, 3)), fold(add_bytes(0, even, 4)));
}

TEST(Frame, IsReadAsItWasMadeAtEverySize) {
  const ProbeTag tag{0x1234, Phase::kMeasured, 4'000'000'000u, 77, 0xabcdef012345};
  for (const uint8_t protocol : {kProtocolUdp, kProtocolTcp}) {
    for (size_t bytes = shortest_frame_bytes(protocol); bytes <= kLongestFrameBytes; ++bytes) {
      const auto frame = frame_of(protocol, bytes, tag);
      const auto read = read_tagged(frame);
      ASSERT_TRUE(read.has_value()) << bytes;
      ASSERT_TRUE(checksums_valid(frame, *read)) << bytes;
      ASSERT_EQ(read->tag.run, tag.run);
      ASSERT_EQ(read->tag.phase, tag.phase);
      ASSERT_EQ(read->tag.flow, tag.flow);
      ASSERT_EQ(read->tag.sequence, tag.sequence);
      ASSERT_EQ(read->tag.sent_tsc, tag.sent_tsc);
      ASSERT_EQ(address_text(read->source), "10.0.0.100");
      ASSERT_EQ(read->source_port.host(), 1024);
    }
  }
}

TEST(Frame, EveryFlippedBitOfAPacketIsNoticed) {
  const auto good = frame_of(kProtocolUdp, 60, {1, Phase::kWarmup, 2, 3, 4});
  for (size_t bit = kIpv4Offset * 8; bit < good.size() * 8; ++bit) {
    auto bad = good;
    bad[bit / 8] ^= static_cast<uint8_t>(1 << bit % 8);
    const auto read = read_tagged(bad);
    EXPECT_FALSE(read && checksums_valid(bad, *read)) << "bit " << bit;
  }
}

TEST(Frame, ChecksumsHoldForManyTags) {
  const uint32_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  for (int count = 0; count < 100'000; ++count) {
    const ProbeTag tag{static_cast<uint16_t>(random() & kRunMask), Phase::kMeasured,
                       static_cast<uint32_t>(random()), static_cast<uint32_t>(random()),
                       random() & kTscMask};
    const uint8_t protocol = count % 2 ? kProtocolTcp : kProtocolUdp;
    const auto frame = frame_of(protocol, shortest_frame_bytes(protocol), tag,
                                static_cast<uint16_t>(random() | 1));
    ASSERT_TRUE(checksums_valid(frame, *read_tagged(frame)));
  }
}

TEST(Frame, CutShortAnywhereIsNotRead) {
  for (const uint8_t protocol : {kProtocolUdp, kProtocolTcp}) {
    const auto frame = frame_of(protocol, shortest_frame_bytes(protocol), {});
    for (size_t bytes = 0; bytes < frame.size(); ++bytes) {
      // A copy of its own, so that a sanitizer sees a read beyond it.
      const std::vector<uint8_t> cut(frame.begin(), frame.begin() + static_cast<ptrdiff_t>(bytes));
      EXPECT_FALSE(read_tagged(cut).has_value()) << bytes;
    }
  }
}

TEST(Frame, RandomBytesAreReadWithinBounds) {
  const uint32_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  const auto good = frame_of(kProtocolTcp, 100, {});
  for (int count = 0; count < 50'000; ++count) {
    std::vector<uint8_t> frame(good.begin(), good.begin() + random() % 100);
    for (int change = 0; change < 4 && !frame.empty(); ++change)
      frame[random() % frame.size()] = static_cast<uint8_t>(random());
    if (const auto read = read_tagged(frame)) {
      checksums_valid(frame, *read);
      reverse(frame, *read);
    }
    read_arp(frame);
  }
}

TEST(Frame, FragmentsAndOtherProtocolsAreNotRead) {
  auto fragment = frame_of(kProtocolUdp, 60, {});
  fragment[kIpv4Offset + 6] = 0x20;  // more fragments
  EXPECT_FALSE(read_tagged(fragment).has_value());
  auto icmp = frame_of(kProtocolUdp, 60, {});
  icmp[kIpv4Offset + 9] = 1;
  EXPECT_FALSE(read_tagged(icmp).has_value());
}

TEST(Frame, ReversedUdpGoesBack) {
  auto frame = frame_of(kProtocolUdp, 60, {5, Phase::kMeasured, 6, 7, 8});
  reverse(frame, *read_tagged(frame));
  const auto read = read_tagged(frame);
  ASSERT_TRUE(read.has_value());
  EXPECT_TRUE(checksums_valid(frame, *read));
  EXPECT_EQ(address_text(read->source), "198.51.100.10");
  EXPECT_EQ(read->source_port.host(), 7);
  EXPECT_TRUE(std::equal(kOwn.begin(), kOwn.end(), frame.begin()));
  EXPECT_EQ(read->tag.flow, 6u);
}

TEST(Frame, ReversedSynIsASynAckThatAcknowledgesIt) {
  auto frame = frame_of(kProtocolTcp, 72, {5, Phase::kMeasured, 6, 7, 8});
  Be32 sequence, acknowledged;
  std::memcpy(&sequence, frame.data() + kL4Offset + 4, 4);
  reverse(frame, *read_tagged(frame));
  std::memcpy(&acknowledged, frame.data() + kL4Offset + 8, 4);
  EXPECT_EQ(acknowledged.host(), sequence.host() + 1 + kTagBytes);
  EXPECT_EQ(frame[kL4Offset + 13], kTcpSyn | kTcpAck);
  EXPECT_TRUE(checksums_valid(frame, *read_tagged(frame)));
}

TEST(ProbeTag, TimeWraps) {
  EXPECT_EQ(ticks_since(kTscMask - 4, (uint64_t{7} << 48) + 5), 10u);
}

FlowRanges ranges(const char* sources, const char* ports, const char* destinations,
                  const char* destination_ports) {
  return {*parse_address_range(sources), *parse_port_range(ports),
          *parse_address_range(destinations), *parse_port_range(destination_ports)};
}

TEST(FlowSet, AllFiveTuplesDiffer) {
  const FlowRanges all = ranges("10.0.0.1-10.0.0.3", "1000-1004", "192.0.2.0/31", "7-8");
  ASSERT_EQ(all.combinations(), 60u);
  const auto flows = FlowSet::create(all, 60);
  ASSERT_TRUE(flows.ok());
  std::set<std::tuple<uint32_t, uint16_t, uint32_t, uint16_t>> seen;
  for (uint32_t flow = 0; flow < 60; ++flow) {
    const FlowEndpoints& ends = (*flows)[flow];
    seen.emplace(ends.source.raw, ends.source_port.raw, ends.destination.raw,
                 ends.destination_port.raw);
  }
  EXPECT_EQ(seen.size(), 60u);
}

TEST(FlowSet, RefusesMoreThanThereAre) {
  const auto flows = FlowSet::create(ranges("10.0.0.1", "1000-1004", "192.0.2.1", "7"), 6);
  ASSERT_FALSE(flows.ok());
  EXPECT_NE(flows.error().text().find("1 to 5"), std::string::npos) << flows.error().text();
}

TEST(FlowSource, NumbersEachFlowAndTakesBack) {
  auto flows = FlowSet::create(ranges("10.0.0.1", "1000-1002", "192.0.2.1", "7"), 3);
  FlowSource source(std::move(*flows), FrameBuilder(kProtocolUdp, 60, kOwn, kGateway), 9);
  std::vector<uint8_t> frame(kLongestFrameBytes);
  const auto next = [&] {
    const size_t bytes = source.next(frame.data(), 1);
    const auto read = read_tagged(std::span(frame).first(bytes));
    return std::pair(read->tag.flow, read->tag.sequence);
  };
  for (uint32_t count = 0; count < 7; ++count) EXPECT_EQ(next(), std::pair(count % 3, count / 3));
  source.take_back(5);
  EXPECT_EQ(std::accumulate(source.sent().begin(), source.sent().end(), uint64_t{0}), 2u);
  EXPECT_EQ(next(), std::pair(2u, 0u));
  EXPECT_EQ(next(), std::pair(0u, 1u));
}

TEST(Arp, AnswersForItsRangesOnly) {
  const ArpMessage request{ArpOperation::kRequest,
                           kGateway,
                           *parse_address("10.0.0.1"),
                           {},
                           *parse_address("10.0.0.100")};
  const auto frame = write_arp(request);
  EXPECT_EQ(frame[0], 0xff);
  const auto read = read_arp(frame);
  ASSERT_TRUE(read.has_value());
  EXPECT_FALSE(
      answer_arp(*read, kOwn, {*parse_address_range("10.0.0.101-10.0.0.110")}).has_value());
  const auto reply = answer_arp(*read, kOwn, {*parse_address_range("10.0.0.96/28")});
  ASSERT_TRUE(reply.has_value());
  const auto sent = write_arp(*reply);
  EXPECT_TRUE(std::equal(kGateway.begin(), kGateway.end(), sent.begin()));
  const auto heard = read_arp(sent);
  ASSERT_TRUE(heard.has_value());
  EXPECT_EQ(heard->operation, ArpOperation::kReply);
  EXPECT_EQ(heard->sender_mac, kOwn);
  EXPECT_EQ(address_text(heard->sender), "10.0.0.100");
  EXPECT_EQ(address_text(heard->target), "10.0.0.1");
  EXPECT_FALSE(answer_arp(*heard, kOwn, {*parse_address_range("0.0.0.0/1")}).has_value())
      << "answers an answer";
}

TEST(Arp, CutShortIsNotRead) {
  const auto frame = write_arp({});
  for (size_t bytes = 0; bytes < 42; ++bytes)
    EXPECT_FALSE(read_arp(
        std::vector<uint8_t>(frame.begin(), frame.begin() + static_cast<ptrdiff_t>(bytes))));
}

}  // namespace
}  // namespace flowkeep::pktgen
