// Reassembly and fragmentation, each alone and one after the other.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "dataplane/switch/fragmentation.h"
#include "dataplane/switch/reassembly.h"
#include "nfs/checksum.h"
#include "nfs/headers.h"

namespace flowkeep {
namespace {

using Bytes = std::vector<uint8_t>;

constexpr uint32_t kTimeoutMs = 30'000;
constexpr uint8_t kPort = 3;
constexpr size_t kL3 = sizeof(EthernetHeader);

Bytes ipv4_packet(size_t payload_bytes, const Bytes& options = {}, uint32_t source = 0x0a000002,
                  uint16_t identification = 7) {
  const size_t header_bytes = sizeof(Ipv4Header) + options.size();
  Bytes packet(header_bytes + payload_bytes);
  auto& ip = *reinterpret_cast<Ipv4Header*>(packet.data());
  ip.version_and_words = static_cast<uint8_t>(0x40 | header_bytes / 4);
  ip.total_length.set(Be16::from_host(static_cast<uint16_t>(packet.size())));
  ip.identification.set(Be16::from_host(identification));
  ip.ttl = 64;
  ip.protocol = 17;
  ip.src.set(Be32::from_host(source));
  ip.dst.set(Be32::from_host(0xcb007102));
  std::copy(options.begin(), options.end(), packet.begin() + sizeof(Ipv4Header));
  ip.checksum.set(internet_checksum(packet.data(), header_bytes));
  for (size_t i = 0; i < payload_bytes; ++i)
    packet[header_bytes + i] = static_cast<uint8_t>(i * 131 >> 3);
  return packet;
}

// With hop-by-hop options, which each fragment repeats, and destination options, which none does.
Bytes ipv6_packet(size_t payload_bytes) {
  Bytes packet(40 + 8 + 8 + payload_bytes);
  packet[0] = 0x60;
  packet[4] = static_cast<uint8_t>((packet.size() - 40) >> 8);
  packet[5] = static_cast<uint8_t>(packet.size() - 40);
  packet[6] = 0;   // hop-by-hop
  packet[7] = 64;  // hop limit
  packet[8] = 0x20;
  packet[23] = 1;
  packet[24] = 0x20;
  packet[39] = 2;
  packet[40] = 60;  // destination options
  packet[48] = 17;
  for (size_t i = 0; i < payload_bytes; ++i) packet[56 + i] = static_cast<uint8_t>(i * 37 >> 2);
  return packet;
}

Bytes framed(const Bytes& packet) {
  Bytes frame(kL3 + packet.size());
  const bool ipv6 = packet[0] >> 4 == 6;
  frame[12] = ipv6 ? 0x86 : 0x08;
  frame[13] = ipv6 ? 0xdd : 0x00;
  std::copy(packet.begin(), packet.end(), frame.begin() + kL3);
  return frame;
}

std::vector<Bytes> cut(const Bytes& packet, uint32_t mtu, uint32_t identification = 7) {
  const Fragmentation fragmentation(packet.data(), packet.size(), mtu, identification);
  std::vector<Bytes> fragments;
  for (size_t i = 0; i < fragmentation.count(); ++i) {
    Bytes fragment(fragmentation.bytes(i), 0xee);
    fragmentation.write(i, fragment.data());
    fragments.push_back(std::move(fragment));
  }
  return fragments;
}

class ReassemblyTest : public testing::Test {
 protected:
  static constexpr size_t kDatagrams = 4;
  using Storage = std::array<uint8_t, kDatagramBufferBytes>;

  // The whole packet, when this fragment completes it.
  Bytes add(const Bytes& packet, uint64_t now_ms = 0) {
    const Bytes frame = framed(packet);
    const auto fragment = packet[0] >> 4 == 6
                              ? read_ipv6_fragment(frame.data(), frame.size(), kPort)
                              : read_ipv4_fragment(frame.data(), frame.size(), kPort);
    if (!fragment) {
      ADD_FAILURE() << "no fragment";
      return {};
    }
    const auto whole = table_.add(*fragment, now_ms);
    if (!whole) return {};
    largest_bytes_ = whole->largest_fragment_bytes;
    const uint8_t* begin = static_cast<Storage*>(whole->handle)->data() + whole->begin;
    Bytes result(begin + kL3, begin + whole->bytes);
    give_back(whole->handle);
    return result;
  }
  Bytes add_all(const std::vector<Bytes>& fragments, uint64_t now_ms = 0) {
    Bytes whole;
    for (const Bytes& fragment : fragments) {
      EXPECT_TRUE(whole.empty());
      whole = add(fragment, now_ms);
    }
    return whole;
  }
  void give_back(void* handle) { ASSERT_EQ(taken_.erase(handle), 1U); }

  std::map<void*, std::unique_ptr<Storage>> taken_;
  size_t buffers_ = kDatagrams + 1;
  std::map<DropReason, uint32_t> lost_;
  uint32_t largest_bytes_ = 0;
  Reassembly table_{kDatagrams,
                    kTimeoutMs,
                    {1, 2},
                    {.take =
                         [this] {
                           if (taken_.size() == buffers_) return Reassembly::Buffer{};
                           auto storage = std::make_unique<Storage>();
                           Storage* handle = storage.get();
                           taken_.emplace(handle, std::move(storage));
                           return Reassembly::Buffer{handle, handle->data()};
                         },
                     .give_back = [this](void* handle) { give_back(handle); },
                     .lost =
                         [this](uint8_t port, DropReason reason, uint32_t packets) {
                           EXPECT_EQ(port, kPort);
                           lost_[reason] += packets;
                         }}};
};

TEST_F(ReassemblyTest, EveryOrderOfThreeFragmentsGivesThePacket) {
  for (const Bytes& packet : {ipv4_packet(4000), ipv6_packet(4000)}) {
    std::vector<Bytes> fragments = cut(packet, 1500);
    ASSERT_EQ(fragments.size(), 3U);
    std::array<size_t, 3> order = {0, 1, 2};
    do {
      EXPECT_EQ(add_all({fragments[order[0]], fragments[order[1]], fragments[order[2]]}), packet);
      EXPECT_LE(largest_bytes_, 1500U);
      EXPECT_GT(largest_bytes_, 1500U - 8);
    } while (std::next_permutation(order.begin(), order.end()));
  }
  EXPECT_TRUE(lost_.empty());
  EXPECT_TRUE(taken_.empty());
  EXPECT_EQ(table_.pending(), 0U);
}

TEST_F(ReassemblyTest, LastByteOfTheBufferIsUsedAndTheNextIsRefused) {
  for (const size_t payload : {kDatagramPayloadBytes, kDatagramPayloadBytes + 1}) {
    const Bytes packet = ipv4_packet(payload);
    Bytes whole;
    for (const Bytes& fragment : cut(packet, 1500)) whole = add(fragment);
    if (payload == kDatagramPayloadBytes)
      EXPECT_EQ(whole, packet);
    else
      EXPECT_TRUE(whole.empty());
  }
  EXPECT_EQ(lost_, (std::map<DropReason, uint32_t>{{DropReason::kBadFragment, 1}}));
}

// 65,535 bytes at most by the offset field: the end of the last fragment could lie beyond.
TEST_F(ReassemblyTest, FragmentThatEndsBeyond64KiBIsRefused) {
  std::vector<Bytes> fragments = cut(ipv4_packet(2000), 1500);
  reinterpret_cast<Ipv4Header*>(fragments[1].data())->flags_and_offset.set(Be16::from_host(0x1fff));
  EXPECT_TRUE(add(fragments[1]).empty());
  EXPECT_EQ(lost_[DropReason::kBadFragment], 1U);
  EXPECT_TRUE(taken_.empty());
}

TEST_F(ReassemblyTest, RepeatedFragmentIsIgnored) {
  const Bytes packet = ipv4_packet(4000);
  const std::vector<Bytes> fragments = cut(packet, 1500);
  EXPECT_TRUE(add(fragments[2]).empty());
  EXPECT_TRUE(add(fragments[2]).empty());
  EXPECT_TRUE(add(fragments[0]).empty());
  EXPECT_TRUE(add(fragments[0]).empty());
  EXPECT_EQ(add(fragments[1]), packet);
  EXPECT_EQ(lost_, (std::map<DropReason, uint32_t>{{DropReason::kFragmentDuplicate, 2}}));
}

// Not only the datagram is gone, also what may still come of it (RFC 5722).
TEST_F(ReassemblyTest, OverlapDiscardsTheDatagramAndWhatIsStillToCome) {
  const std::vector<Bytes> fragments = cut(ipv4_packet(4000), 1500);
  std::vector<Bytes> other = fragments;
  other[1][25] ^= 1;
  EXPECT_TRUE(add(fragments[0]).empty());
  EXPECT_TRUE(add(fragments[1]).empty());
  EXPECT_TRUE(add(other[1]).empty());
  EXPECT_TRUE(add(fragments[2]).empty());
  EXPECT_TRUE(add_all(fragments).empty());
  EXPECT_EQ(lost_, (std::map<DropReason, uint32_t>{{DropReason::kFragmentOverlap, 7}}));
  EXPECT_TRUE(taken_.empty());
  table_.tick(kTimeoutMs);
  EXPECT_EQ(add_all(fragments, kTimeoutMs), ipv4_packet(4000));
}

// One byte of overlap, on either side of what is there.
TEST_F(ReassemblyTest, PartialOverlapIsOne) {
  for (const uint32_t unit : {0U, 1U}) {
    const std::vector<Bytes> fragments = cut(ipv4_packet(4000, {}, 0x0a000002 + unit), 1500);
    Bytes shifted = fragments[1];
    auto& ip = *reinterpret_cast<Ipv4Header*>(shifted.data());
    const auto flags = ip.flags_and_offset.get().host();
    ip.flags_and_offset.set(
        Be16::from_host(static_cast<uint16_t>(unit == 0 ? flags - 1 : flags + 1)));
    EXPECT_TRUE(add(fragments[unit == 0 ? 0 : 2]).empty());
    EXPECT_TRUE(add(shifted).empty());
    EXPECT_EQ(lost_[DropReason::kFragmentOverlap], 2 * (unit + 1));
  }
}

TEST_F(ReassemblyTest, EndsThatContradictEachOtherAreAnOverlap) {
  const std::vector<Bytes> fragments = cut(ipv4_packet(4000), 1500);
  Bytes early_end = fragments[1];
  auto& ip = *reinterpret_cast<Ipv4Header*>(early_end.data());
  ip.flags_and_offset.set(Be16::from_host(ip.fragment_offset()));
  EXPECT_TRUE(add(fragments[2]).empty());
  EXPECT_TRUE(add(early_end).empty());
  EXPECT_EQ(lost_[DropReason::kFragmentOverlap], 2U);
  table_.tick(kTimeoutMs);

  EXPECT_TRUE(add(early_end, kTimeoutMs).empty());
  EXPECT_TRUE(add(fragments[2], kTimeoutMs).empty());
  EXPECT_EQ(lost_[DropReason::kFragmentOverlap], 4U);
}

TEST_F(ReassemblyTest, TimeIsUpForWhatDoesNotComeWhole) {
  const std::vector<Bytes> fragments = cut(ipv4_packet(4000), 1500);
  add(fragments[0], 1000);
  add(fragments[1], 5000);
  table_.tick(1000 + kTimeoutMs - 1);
  EXPECT_EQ(table_.pending(), 1U);
  table_.tick(1000 + kTimeoutMs);
  EXPECT_EQ(table_.pending(), 0U);
  EXPECT_EQ(lost_, (std::map<DropReason, uint32_t>{{DropReason::kFragmentTimeout, 2}}));
  EXPECT_TRUE(taken_.empty());
}

TEST_F(ReassemblyTest, FragmentAfterTheTimeBeginsAnew) {
  const std::vector<Bytes> fragments = cut(ipv4_packet(2000), 1500);
  add(fragments[0], 1000);
  EXPECT_TRUE(add(fragments[1], 1000 + kTimeoutMs).empty());
  EXPECT_EQ(lost_[DropReason::kFragmentTimeout], 1U);
  EXPECT_EQ(add(fragments[0], 1001 + kTimeoutMs), ipv4_packet(2000));
}

TEST_F(ReassemblyTest, OldestGivesWayWhenTheTableIsFull) {
  std::vector<std::vector<Bytes>> datagrams;
  for (uint32_t i = 0; i <= kDatagrams; ++i)
    datagrams.push_back(cut(ipv4_packet(2000, {}, 0x0a000002 + i), 1500));
  for (const std::vector<Bytes>& fragments : datagrams) add(fragments[0]);
  EXPECT_EQ(table_.pending(), kDatagrams);
  EXPECT_EQ(lost_, (std::map<DropReason, uint32_t>{{DropReason::kFragmentTableFull, 1}}));
  for (uint32_t i = 1; i <= kDatagrams; ++i)
    EXPECT_EQ(add(datagrams[i][1]), ipv4_packet(2000, {}, 0x0a000002 + i));
  EXPECT_TRUE(taken_.empty());
}

TEST_F(ReassemblyTest, NothingIsKeptWithoutABuffer) {
  buffers_ = 0;
  add(cut(ipv4_packet(2000), 1500)[0]);
  EXPECT_EQ(lost_[DropReason::kFragmentTableFull], 1U);
  EXPECT_EQ(table_.pending(), 0U);
}

TEST_F(ReassemblyTest, DatagramsAreToldApart) {
  const Bytes one = ipv4_packet(2000), other = ipv4_packet(2000, {}, 0x0a000003);
  std::vector<Bytes> first = cut(one, 1500, 1), second = cut(other, 1500, 1);
  std::vector<Bytes> third = cut(one, 1500, 2);
  for (const auto* fragments : {&first, &second, &third}) EXPECT_TRUE(add((*fragments)[0]).empty());
  for (const auto* fragments : {&first, &second, &third})
    EXPECT_EQ(add((*fragments)[1]).size(), 2020U);
  EXPECT_TRUE(lost_.empty());
}

// RFC 6946: a packet in one fragment is whole, also while others have its identification.
TEST_F(ReassemblyTest, AtomicFragmentIsWholeByItself) {
  const Bytes large = ipv6_packet(4000);
  const std::vector<Bytes> fragments = cut(large, 1500);
  add(fragments[0]);
  const Bytes small = ipv6_packet(100);
  const std::vector<Bytes> atomic = cut(small, 1500);
  ASSERT_EQ(atomic.size(), 1U);
  EXPECT_EQ(add(atomic[0]), small);
  EXPECT_TRUE(add(fragments[1]).empty());
  EXPECT_EQ(add(fragments[2]), large);
}

TEST_F(ReassemblyTest, TooManyGapsAreRefused) {
  const std::vector<Bytes> fragments = cut(ipv4_packet(3000), 28);
  for (size_t i = 0; i < fragments.size(); i += 2) add(fragments[i]);
  EXPECT_EQ(lost_.begin()->first, DropReason::kBadFragment);
  EXPECT_TRUE(taken_.empty());
}

TEST_F(ReassemblyTest, AnySizesInAnyOrderGiveThePacketBack) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  const auto draw = [&random](size_t low, size_t high) {
    return std::uniform_int_distribution<size_t>(low, high)(random);
  };
  for (int round = 0; round < 500; ++round) {
    const bool ipv6 = draw(0, 1) == 1;
    const size_t payload = draw(1, 20'000);
    Bytes options(draw(0, 10) * 4, 1);
    const Bytes packet = ipv6 ? ipv6_packet(payload) : ipv4_packet(payload, options);
    // Few enough fragments that no order of them leaves too many gaps.
    const size_t mtu = std::max<size_t>(payload / draw(1, kDatagramGaps) + 200, 576);
    std::vector<Bytes> fragments = cut(packet, static_cast<uint32_t>(mtu));
    if (fragments.size() < 2) continue;
    std::shuffle(fragments.begin(), fragments.end(), random);
    ASSERT_EQ(add_all(fragments, static_cast<uint64_t>(round)), packet) << round;
  }
  EXPECT_TRUE(taken_.empty());
}

TEST(Fragmentation, FitsTheMtuAndWastesLessThanEightBytes) {
  for (uint32_t mtu = 576; mtu < 600; ++mtu) {
    for (const Bytes& packet : {ipv4_packet(5000), ipv6_packet(5000)}) {
      const std::vector<Bytes> fragments = cut(packet, mtu);
      for (size_t i = 0; i < fragments.size(); ++i) {
        EXPECT_LE(fragments[i].size(), mtu);
        if (i + 1 < fragments.size()) {
          EXPECT_GT(fragments[i].size(), mtu - 8);
        }
      }
    }
  }
}

TEST(Fragmentation, HeadersOfIpv4AreRightInEachFragment) {
  const std::vector<Bytes> fragments = cut(ipv4_packet(4000), 1500, 0x1234);
  for (size_t i = 0; i < fragments.size(); ++i) {
    const auto& ip = *reinterpret_cast<const Ipv4Header*>(fragments[i].data());
    EXPECT_EQ(internet_checksum(fragments[i].data(), ip.header_bytes()).raw, 0);
    EXPECT_EQ(ip.total_length.get().host(), fragments[i].size());
    EXPECT_EQ(ip.identification.get().host(), 0x1234);
    EXPECT_EQ(ip.fragment_offset(), i * 185);
    EXPECT_EQ(ip.more_fragments(), i + 1 < fragments.size());
  }
}

// Record route is for the first fragment alone, the router alert for each (RFC 791, RFC 2113).
TEST(Fragmentation, OptionsAreCopiedAsTheySay) {
  const Bytes options = {7, 7, 4, 0, 0, 0, 0, 0x94, 4, 0, 0, 0};
  const std::vector<Bytes> fragments = cut(ipv4_packet(4000, options), 1500);
  EXPECT_TRUE(std::equal(options.begin(), options.end(), fragments[0].begin() + 20));
  for (size_t i = 1; i < fragments.size(); ++i) {
    EXPECT_EQ(fragments[i][0], 0x46);
    EXPECT_EQ(Bytes(fragments[i].begin() + 20, fragments[i].begin() + 24), (Bytes{0x94, 4, 0, 0}));
  }
}

TEST(Fragmentation, FragmentHeaderComesAfterWhatEachFragmentHas) {
  const std::vector<Bytes> fragments = cut(ipv6_packet(4000), 1500, 0x01020304);
  for (size_t i = 0; i < fragments.size(); ++i) {
    const Bytes& fragment = fragments[i];
    EXPECT_EQ(fragment[6], 0);    // hop-by-hop options
    EXPECT_EQ(fragment[40], 44);  // fragment header
    EXPECT_EQ(fragment[48], 60);  // destination options, in the part that was cut
    EXPECT_EQ(fragment[4] << 8 | fragment[5], static_cast<int>(fragment.size() - 40));
    EXPECT_EQ(fragment[51] & 1, i + 1 < fragments.size() ? 1 : 0);
    EXPECT_EQ(Bytes(fragment.begin() + 52, fragment.begin() + 56), (Bytes{1, 2, 3, 4}));
  }
}

TEST(Fragmentation, NothingIsCutWhereTheHeadersFillTheMtu) {
  EXPECT_TRUE(cut(ipv4_packet(100), 27).empty());
  EXPECT_FALSE(cut(ipv4_packet(100), 28).empty());
}

TEST(ReadFragment, WhatIsNotWholeOrNoFragmentIsNone) {
  const Bytes whole = framed(ipv4_packet(100));
  EXPECT_FALSE(read_ipv4_fragment(whole.data(), whole.size(), kPort));
  for (const Bytes& packet : {cut(ipv4_packet(2000), 1500)[0], cut(ipv6_packet(2000), 1500)[0]}) {
    const Bytes frame = framed(packet);
    const bool ipv6 = packet[0] >> 4 == 6;
    for (size_t length = 0; length < frame.size(); ++length) {
      const Bytes part(frame.begin(), frame.begin() + static_cast<ptrdiff_t>(length));
      ASSERT_FALSE(ipv6 ? read_ipv6_fragment(part.data(), length, kPort)
                        : read_ipv4_fragment(part.data(), length, kPort));
    }
    // A frame of the minimum size is filled up: what is beyond the packet is not payload.
    Bytes padded = frame;
    padded.resize(frame.size() + 6);
    const auto fragment = ipv6 ? read_ipv6_fragment(padded.data(), padded.size(), kPort)
                               : read_ipv4_fragment(padded.data(), padded.size(), kPort);
    ASSERT_TRUE(fragment);
    EXPECT_EQ(fragment->packet_bytes(), packet.size());
  }
}

}  // namespace
}  // namespace flowkeep
