// For tests of nat44: a chain of it alone, hosts on both sides, and what a hairpin looks like. Each
// test runs plain and with a crash in every burst, at least.
#pragma once

#include <set>
#include <string>
#include <utility>

#include "nfs/chain_harness.h"
#include "nfs/nat44/nat44.h"

namespace flowkeep {

inline constexpr char kHost[] = "10.0.0.2";
inline constexpr char kOtherHost[] = "10.0.0.3";
inline constexpr char kRemote[] = "198.51.100.7";
inline constexpr char kOtherRemote[] = "198.51.100.8";
inline constexpr char kExternal[] = "203.0.113.10";
inline constexpr char kOutsideRouter[] = "192.0.2.1";
inline constexpr char kOneUnit[] = R"("port_range":{"first":2048,"last":2111})";

class NatTest : public testing::TestWithParam<Crash> {
 protected:
  using ExternalEndpoint = std::pair<std::string, uint16_t>;

  // `fields`: of the configuration, after the external address: R"("filtering":"...")".
  static ChainSpec nat(const std::string& fields = "", uint32_t revision = 1) {
    return with(R"(["203.0.113.10"])", fields, revision);
  }
  static ChainSpec with(const std::string& addresses, const std::string& fields = "",
                        uint32_t revision = 1) {
    const std::string rest = fields.empty() ? "" : "," + fields;
    return {"test", revision, {{"nat44", R"({"external_addresses":)" + addresses + rest + "}"}}};
  }
  // The first call decides the chain.
  ChainHarness& harness(const ChainSpec& spec = nat()) {
    if (!harness_) harness_ = std::make_unique<ChainHarness>(spec, directory_, GetParam());
    return *harness_;
  }

  std::string_view send(Side side, const Bytes& frame) {
    return drop_reason_name(harness().send(side, frame).reason);
  }
  std::string_view out(const PacketBuilder& packet) { return send(Side::kInside, packet.build()); }
  std::string_view in(const PacketBuilder& packet) { return send(Side::kOutside, packet.build()); }
  // What comes out, as the side sees it that it leaves to.
  static FlowKey key_of(const Departure& departure) {
    PacketMeta meta;
    EXPECT_EQ(drop_reason_name(departure.reason), "none");
    parse(departure.frame.data(), static_cast<uint16_t>(departure.frame.size()), Side::kInside, {},
          meta);
    return meta.key;
  }
  // Who a packet from the inside seems to come from.
  ExternalEndpoint external_of(const PacketBuilder& packet) {
    const FlowKey key = key_of(harness().send(Side::kInside, packet.build()));
    return {to_string(key.src), key.src_port.host()};
  }
  uint16_t port_of(const PacketBuilder& packet) { return external_of(packet).second; }
  // A connection of kHost's port 40000 with kRemote's port 80 that both sides have opened. Returns
  // the external port.
  uint16_t connect() {
    const uint16_t port = port_of(tcp(kHost, 40000, kRemote, 80, kTcpSyn));
    EXPECT_EQ(in(tcp(kRemote, 80, kExternal, port, kTcpSyn | kTcpAck)), "none");
    EXPECT_EQ(out(tcp(kHost, 40000, kRemote, 80, kTcpAck)), "none");
    return port;
  }
  // Where every port is taken, none is given twice, not even towards different remote endpoints.
  // `first_packet`: of kHost's port towards any remote endpoint that follows from it.
  void expect_no_port_is_overloaded(PacketBuilder (*first_packet)(uint16_t port)) {
    harness(nat(kOneUnit + std::string(R"(,"mappings_per_host":1000)")));
    std::set<ExternalEndpoint> given;
    uint32_t refused = 0;
    for (uint16_t port = 1000; port < 2500; ++port) {
      const PacketBuilder packet = first_packet(port);
      if (const std::string_view reason = out(packet); reason == "none") {
        EXPECT_TRUE(given.insert(external_of(packet)).second);
      } else {
        EXPECT_EQ(reason, "nat_ports_exhausted");
        ++refused;
      }
    }
    EXPECT_EQ(given.size(), 64U);
    EXPECT_EQ(refused, 1500U - 64U);
  }
  // Through the chain to an external address, and from there through it again, as the switch does.
  Departure hairpin(const PacketBuilder& packet) {
    const Departure turned = harness().send(Side::kInside, packet.build());
    if (turned.reason != DropReason::kNone) return turned;
    return harness().send(Side::kOutside, turned.frame);
  }
  // Leases of the only address.
  uint32_t leases() {
    const uint32_t* words = harness().pool().port_leases(0);
    return static_cast<uint32_t>(
        kPortBlocks - static_cast<size_t>(std::count(words, words + kPortBlocks, uint32_t{0})));
  }
  uint32_t keyed_records() {
    uint32_t keyed = 0;
    for (uint32_t bucket = 0; bucket < ChainHarness::kBuckets; ++bucket) {
      keyed += harness().table().keyed(bucket);
    }
    return keyed;
  }
  void pass_time(uint32_t seconds) {
    harness().now_s += seconds;
    while (harness().sweep_all() != 0) {
    }
  }

  static PacketBuilder udp(const std::string& from, uint16_t port, const std::string& to = kRemote,
                           uint16_t to_port = 5000) {
    return PacketBuilder::udp(from, port, to, to_port).payload(12);
  }
  static PacketBuilder tcp(const std::string& from, uint16_t port, const std::string& to,
                           uint16_t to_port, uint8_t flags) {
    return PacketBuilder::tcp(from, port, to, to_port, flags);
  }

 private:
  PoolDirectory directory_;
  std::unique_ptr<ChainHarness> harness_;
};

}  // namespace flowkeep
