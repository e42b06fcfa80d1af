#include "nfs/nat44/nat44.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "nfs/chain_harness.h"

namespace flowkeep {
namespace {

constexpr char kHost[] = "10.0.0.2";
constexpr char kInsideRouter[] = "10.0.0.254";
constexpr char kRemote[] = "198.51.100.7";
constexpr char kOutsideRouter[] = "192.0.2.1";
constexpr char kExternal[] = "203.0.113.10";

ChainSpec nat(const std::string& config = R"({"external_addresses":["203.0.113.10"]})") {
  return {"test", 1, {{"nat44", config}}};
}

class Nat44Test : public testing::TestWithParam<Crash> {
 protected:
  ChainHarness& harness(const ChainSpec& spec = nat()) {
    if (!harness_) harness_ = std::make_unique<ChainHarness>(spec, directory_, GetParam());
    return *harness_;
  }
  // The source of a packet that has left to the outside: port, or identifier of an echo.
  static FlowKey key_of(const Departure& departure) {
    PacketMeta meta;
    EXPECT_EQ(departure.reason, DropReason::kNone) << drop_reason_name(departure.reason);
    parse(departure.frame.data(), static_cast<uint16_t>(departure.frame.size()), Side::kInside, {},
          meta);
    return meta.key;
  }
  uint16_t external_port(const Bytes& frame) {
    const FlowKey key = key_of(harness().send(Side::kInside, frame));
    EXPECT_EQ(to_string(key.src), kExternal);
    return key.src_port.host();
  }
  void expect_out(const Bytes& frame, const Bytes& expected) {
    expect_same(harness().send(Side::kInside, frame), expected);
  }
  void expect_back(const Bytes& frame, const Bytes& expected) {
    expect_same(harness().send(Side::kOutside, frame), expected);
  }

 private:
  static void expect_same(const Departure& departure, const Bytes& expected) {
    EXPECT_EQ(drop_reason_name(departure.reason), "none");
    EXPECT_EQ(departure.frame, expected);
    EXPECT_EQ(departure.frame.empty() ? "" : checksum_faults(departure.frame), "");
  }
  PoolDirectory directory_;
  std::unique_ptr<ChainHarness> harness_;
};
INSTANTIATE_TEST_SUITE_P(Crashes, Nat44Test, testing::ValuesIn(kEveryMode));

// ---- Rewrites: every byte of what comes out, against a packet built with the other endpoint.

TEST_P(Nat44Test, Tcp) {
  const auto out = [](const char* src, uint16_t port, uint8_t flags) {
    return PacketBuilder::tcp(src, port, kRemote, 443, flags)
        .ip_options(1)
        .tcp_options(2)
        .payload(33)
        .build();
  };
  const auto back = [](const char* dst, uint16_t port) {
    return PacketBuilder::tcp(kRemote, 443, dst, port, kTcpSyn | kTcpAck).build();
  };
  const uint16_t port = external_port(out(kHost, 40000, kTcpSyn));
  expect_out(out(kHost, 40000, kTcpSyn), out(kExternal, port, kTcpSyn));
  expect_back(back(kExternal, port), back(kHost, 40000));
  expect_out(out(kHost, 40000, kTcpAck), out(kExternal, port, kTcpAck));

  const auto record = harness().flow_of(Side::kInside, out(kHost, 40000, kTcpAck));
  ASSERT_TRUE(record);
  EXPECT_EQ(record->phase, FlowPhase::kEstablished);
  Nat44::Hard hard;
  std::memcpy(&hard, record->hard, sizeof(hard));
  EXPECT_EQ(to_string(hard.external.address), kExternal);
  EXPECT_EQ(hard.external.port.host(), port);
}

TEST_P(Nat44Test, Udp) {
  const auto out = [](const char* src, uint16_t port) {
    return PacketBuilder::udp(src, port, kRemote, 53).payload(18).build();
  };
  const auto back = [](const char* dst, uint16_t port) {
    return PacketBuilder::udp(kRemote, 53, dst, port).payload(7).build();
  };
  const uint16_t port = external_port(out(kHost, 40001));
  expect_out(out(kHost, 40001), out(kExternal, port));
  expect_back(back(kExternal, port), back(kHost, 40001));
}

TEST_P(Nat44Test, UdpWithoutChecksum) {
  const auto out = [](const char* src, uint16_t port) {
    return PacketBuilder::udp(src, port, kRemote, 53).without_udp_checksum().build();
  };
  expect_out(out(kHost, 40001), out(kExternal, external_port(out(kHost, 40001))));
}

TEST_P(Nat44Test, Echo) {
  const auto out = [](const char* src, uint16_t identifier) {
    return PacketBuilder::echo_request(src, kRemote, identifier).payload(20).build();
  };
  const auto back = [](const char* dst, uint16_t identifier) {
    return PacketBuilder::echo_reply(kRemote, dst, identifier).payload(20).build();
  };
  const uint16_t identifier = external_port(out(kHost, 77));
  expect_out(out(kHost, 77), out(kExternal, identifier));
  expect_back(back(kExternal, identifier), back(kHost, 77));
}

// What each side sent, as the inside sees it with kHost and as the outside sees it with kExternal.
struct Conversation {
  const char* description;
  Bytes (*out)(const char* host, uint16_t port);
  Bytes (*back)(const char* host, uint16_t port);
};
const Conversation kConversations[] = {
    {"TCP",
     [](const char* host, uint16_t port) {
       return PacketBuilder::tcp(host, port, kRemote, 443, kTcpSyn).payload(64).build();
     },
     [](const char* host, uint16_t port) {
       return PacketBuilder::tcp(kRemote, 443, host, port, kTcpAck).payload(64).build();
     }},
    {"UDP",
     [](const char* host, uint16_t port) {
       return PacketBuilder::udp(host, port, kRemote, 33434).payload(64).build();
     },
     [](const char* host, uint16_t port) {
       return PacketBuilder::udp(kRemote, 33434, host, port).payload(64).build();
     }},
    {"UDP without checksum",
     [](const char* host, uint16_t port) {
       return PacketBuilder::udp(host, port, kRemote, 33434)
           .without_udp_checksum()
           .payload(64)
           .build();
     },
     [](const char* host, uint16_t port) {
       return PacketBuilder::udp(kRemote, 33434, host, port)
           .without_udp_checksum()
           .payload(64)
           .build();
     }},
    {"echo",
     [](const char* host, uint16_t port) {
       return PacketBuilder::echo_request(host, kRemote, port).payload(64).build();
     },
     [](const char* host, uint16_t port) {
       return PacketBuilder::echo_reply(kRemote, host, port).payload(64).build();
     }},
};

// Traceroute (type 11) and path MTU discovery (3, 4) through the NAT, however much is quoted: 8
// bytes, all before a TCP checksum, up to its end, everything.
TEST_P(Nat44Test, ErrorsFromTheOutside) {
  for (const Conversation& talk : kConversations) {
    SCOPED_TRACE(talk.description);
    const Bytes sent = talk.out(kHost, 4001);
    const uint16_t port = external_port(sent);
    for (const size_t quoted : {8U, 16U, 18U, 19U, 72U}) {
      for (const auto& [type, code] : {std::pair{3, 4}, {11, 0}, {12, 0}}) {
        const auto error = [&](const char* to, const Bytes& about) {
          return PacketBuilder::icmp_error(kOutsideRouter, to, static_cast<uint8_t>(type),
                                           static_cast<uint8_t>(code), about, quoted)
              .build();
        };
        SCOPED_TRACE(quoted);
        expect_back(error(kExternal, talk.out(kExternal, port)), error(kHost, sent));
      }
    }
  }
}

TEST_P(Nat44Test, ErrorsFromTheInside) {
  for (const Conversation& talk : kConversations) {
    SCOPED_TRACE(talk.description);
    const uint16_t port = external_port(talk.out(kHost, 4001));
    for (const char* reporter : {kHost, kInsideRouter}) {
      for (const size_t quoted : {8U, 18U, 72U}) {
        const auto error = [&](const char* from, const Bytes& about) {
          return PacketBuilder::icmp_error(from, kRemote, 3, 3, about, quoted).build();
        };
        SCOPED_TRACE(quoted);
        expect_out(error(reporter, talk.back(kHost, 4001)),
                   error(kExternal, talk.back(kExternal, port)));
      }
    }
  }
}

// The largest headers there are: all that is edited must lie within what the undo log saves.
TEST_P(Nat44Test, ErrorWithAllOptions) {
  const auto sent = [](const char* host, uint16_t port) {
    return PacketBuilder::tcp(host, port, kRemote, 443, kTcpSyn)
        .ip_options(10)
        .tcp_options(10)
        .build();
  };
  const uint16_t port = external_port(sent(kHost, 4001));
  const auto error = [&](const char* to, const Bytes& about) {
    return PacketBuilder::icmp_error(kOutsideRouter, to, 3, 4, about, 60).ip_options(10).build();
  };
  expect_back(error(kExternal, sent(kExternal, port)), error(kHost, sent(kHost, 4001)));
}

// ---- Mapping and filtering.

TEST_P(Nat44Test, OneEndpointKeepsOneExternalEndpoint) {
  std::set<uint16_t> ports;
  for (uint16_t n = 1; n <= 100; ++n) {
    ports.insert(external_port(PacketBuilder::udp(kHost, 40000, kRemote, n).build()));
    ports.insert(external_port(PacketBuilder::udp(kHost, 40000, "198.51.100.8", n).build()));
  }
  EXPECT_EQ(ports.size(), 1U);
}

TEST_P(Nat44Test, EndpointsTowardsOneRemoteDifferAndKeepParity) {
  std::set<uint16_t> ports;
  for (uint16_t port = 2000; port < 2400; ++port) {
    const uint16_t external = external_port(PacketBuilder::udp(kHost, port, kRemote, 53).build());
    EXPECT_GE(external, 1024);
    EXPECT_EQ(external % 2, port % 2);
    EXPECT_TRUE(ports.insert(external).second) << external << " given twice";
  }
}

TEST_P(Nat44Test, OnlyTheRemoteEndpointOfAFlowGetsIn) {
  const uint16_t port = external_port(PacketBuilder::udp(kHost, 40000, kRemote, 53).build());
  const auto reason = [this](const PacketBuilder& packet) {
    return drop_reason_name(harness().send(Side::kOutside, packet.build()).reason);
  };
  EXPECT_EQ(reason(PacketBuilder::udp(kRemote, 53, kExternal, port)), "none");
  EXPECT_EQ(reason(PacketBuilder::udp(kRemote, 54, kExternal, port)), "nat_no_mapping");
  EXPECT_EQ(reason(PacketBuilder::udp("198.51.100.8", 53, kExternal, port)), "nat_no_mapping");
  EXPECT_EQ(reason(PacketBuilder::tcp(kRemote, 53, kExternal, port, kTcpSyn)), "nat_no_mapping");
  EXPECT_EQ(reason(PacketBuilder::tcp(kRemote, 53, kExternal, port, kTcpAck)), "no_flow");
  EXPECT_EQ(reason(PacketBuilder::udp(kRemote, 53, kExternal, 1023)), "no_port_lease");
  const Bytes foreign = PacketBuilder::udp(kExternal, port, kRemote, 99).build();
  EXPECT_EQ(reason(PacketBuilder::icmp_error(kOutsideRouter, kExternal, 3, 3, foreign)), "no_flow");
}

TEST_P(Nat44Test, AHostIsPairedWithOneAddress) {
  ChainHarness& chain =
      harness(nat(R"({"external_addresses":["203.0.113.10","203.0.113.11","203.0.113.12"]})"));
  std::set<uint32_t> all;
  for (uint32_t host = 0; host < 50; ++host) {
    std::set<uint32_t> of_host;
    for (uint16_t port = 2000; port < 2010; ++port) {
      const std::string source = to_string(Be32::from_host(0x0a000100 + host));
      of_host.insert(
          key_of(chain.send(Side::kInside, PacketBuilder::udp(source, port, kRemote, 53).build()))
              .src.raw);
    }
    EXPECT_EQ(of_host.size(), 1U);
    all.insert(*of_host.begin());
  }
  EXPECT_EQ(all.size(), 3U);
}

// One block: every port of it is given, once towards each remote, to the bucket that leased it.
TEST_P(Nat44Test, ExhaustedRangeRefusesNewFlowsOnly) {
  harness(
      nat(R"({"external_addresses":["203.0.113.10"],"port_range":{"first":2048,"last":2111}})"));
  std::map<uint16_t, uint16_t> opened;  // external port -> inside port
  std::set<std::string_view> refusals;
  for (uint16_t port = 1000; port < 6000; ++port) {
    const Departure departure =
        harness().send(Side::kInside, PacketBuilder::udp(kHost, port, kRemote, 53).build());
    if (departure.reason != DropReason::kNone) {
      refusals.insert(drop_reason_name(departure.reason));
      continue;
    }
    const uint16_t external = key_of(departure).src_port.host();
    EXPECT_TRUE(2048 <= external && external <= 2111);
    EXPECT_TRUE(opened.emplace(external, port).second) << external << " given twice";
  }
  EXPECT_EQ(opened.size(), 64U);
  EXPECT_EQ(refusals, std::set<std::string_view>{"nat_ports_exhausted"});
  for (const auto& [external, port] : opened) {
    EXPECT_EQ(external_port(PacketBuilder::udp(kHost, port, kRemote, 53).build()), external);
    EXPECT_EQ(external_port(PacketBuilder::udp(kHost, port, kRemote, 54).build()) / 64, 2048 / 64);
  }
  harness().now_s += 301;
  EXPECT_EQ(harness().sweep_all(), 128U);
  external_port(PacketBuilder::udp(kHost, opened.begin()->second, kRemote, 53).build());
}

TEST_P(Nat44Test, ASecondAddressIsUsedWhenThePairedOneIsExhausted) {
  ChainHarness& chain = harness(nat(
      R"({"external_addresses":["203.0.113.10","203.0.113.11"],"port_range":{"first":2048,"last":2111}})"));
  std::set<std::pair<uint32_t, uint16_t>> given;
  std::set<uint32_t> addresses;
  for (uint16_t port = 1000; port < 8000; ++port) {
    const Departure departure =
        chain.send(Side::kInside, PacketBuilder::udp(kHost, port, kRemote, 53).build());
    if (departure.reason != DropReason::kNone) continue;
    const FlowKey key = key_of(departure);
    addresses.insert(key.src.raw);
    EXPECT_TRUE(given.emplace(key.src.raw, key.src_port.raw).second);
  }
  EXPECT_EQ(given.size(), 128U);
  EXPECT_EQ(addresses.size(), 2U);
}

// ---- Port blocks.

struct FakeLeases {
  std::map<uint32_t, uint32_t>& owners;  // block -> bucket
  uint32_t bucket;
  int32_t lease_owner(uint32_t, uint32_t block) const {
    const auto found = owners.find(block);
    return found == owners.end() ? -1 : static_cast<int32_t>(found->second);
  }
  bool lease_acquire(uint32_t, uint32_t block) { return owners.emplace(block, bucket).second; }
};

std::vector<uint16_t> blocks_of(const PortBlocks& blocks, uint32_t bucket) {
  std::vector<uint16_t> list;
  for (uint16_t block = blocks.first(bucket, 0); block != PortBlocks::kNoBlock;
       block = blocks.next(0, block)) {
    list.push_back(block);
  }
  return list;
}

TEST(PortBlocks, AnotherWorkerFindsTheSameBlocksInTheSameOrder) {
  std::map<uint32_t, uint32_t> owners;
  PortBlocks first(1, {16, 40});
  for (uint32_t round = 0; round < 3; ++round) {
    for (uint32_t bucket = 0; bucket < 8; ++bucket) {
      FakeLeases leases{owners, bucket};
      EXPECT_NE(first.lease(bucket, 0, leases), PortBlocks::kNoBlock);
    }
  }
  PortBlocks second(1, {16, 40});
  std::set<uint16_t> all;
  for (uint32_t bucket = 0; bucket < 8; ++bucket) {
    second.refresh(bucket, 0, FakeLeases{owners, bucket});
    EXPECT_EQ(blocks_of(second, bucket), blocks_of(first, bucket));
    for (const uint16_t block : blocks_of(second, bucket)) EXPECT_TRUE(all.insert(block).second);
  }
  EXPECT_EQ(all.size(), 24U);
}

TEST(PortBlocks, LeasesUntilTheRangeIsTaken) {
  std::map<uint32_t, uint32_t> owners;
  PortBlocks blocks(1, {100, 5});
  FakeLeases leases{owners, 3};
  std::set<uint16_t> leased;
  for (int i = 0; i < 5; ++i) leased.insert(blocks.lease(3, 0, leases));
  EXPECT_EQ(leased, (std::set<uint16_t>{100, 101, 102, 103, 104}));
  EXPECT_EQ(blocks.lease(3, 0, leases), PortBlocks::kNoBlock);
}

// What a worker leased meanwhile for a bucket that comes back is found.
TEST(PortBlocks, RefreshFindsLaterLeases) {
  std::map<uint32_t, uint32_t> owners;
  FakeLeases leases{owners, 3};
  PortBlocks here(1, {16, 40}), there(1, {16, 40});
  here.lease(3, 0, leases);
  there.refresh(3, 0, leases);
  there.lease(3, 0, leases);
  here.refresh(3, 0, leases);
  EXPECT_EQ(blocks_of(here, 3).size(), 2U);
  EXPECT_EQ(blocks_of(here, 3), blocks_of(there, 3));
}

}  // namespace
}  // namespace flowkeep
