// What nat44 counts for hosts, blocks and contacts, and what it keeps of another configuration's
// mappings: an end takes back what its begin has counted, no more and no less, whatever revisions
// come between, and also where the pool is full.
#include <map>

#include "nfs/nat44/nat_fixture.h"

namespace flowkeep {
namespace {

constexpr char kTwoAddresses[] = R"(["203.0.113.10","203.0.113.11"])";
constexpr char kDeterministic[] = R"("deterministic":{"inside":"10.0.0.0/24"})";
constexpr char kBlocks[] = R"("port_blocks":{"ports":128,"blocks_per_host":2})";
constexpr char kForward[] =
    R"("port_forwards":[{"protocol":"udp","external_address":"203.0.113.10","external_port":2050,)"
    R"("inside_address":"10.0.0.2","inside_port":53}])";

class NatCounts : public NatTest {
 protected:
  static std::string both(const std::string& one, const std::string& other) {
    return one + "," + other;
  }
  // Time for everything to end but the flow of this packet.
  void outlive_all_but(const PacketBuilder& packet) {
    harness().now_s += 200;
    EXPECT_EQ(out(packet), "none");
    pass_time(200);
  }
};
INSTANTIATE_TEST_SUITE_P(Crashes, NatCounts, testing::Values(Crash::kNever, Crash::kEveryBurst));

TEST_P(NatCounts, AForwardIsNotCountedAndItsEndTakesNothingBack) {
  harness(nat(both(R"("mappings_per_host":2)", kForward)));
  EXPECT_EQ(out(udp(kHost, 2000)), "none");
  EXPECT_EQ(in(udp(kRemote, 9, kExternal, 2050)), "none");
  outlive_all_but(udp(kHost, 2000));
  EXPECT_EQ(harness().flows(), 1U);
  EXPECT_EQ(out(udp(kHost, 2001)), "none");
  EXPECT_EQ(out(udp(kHost, 2002)), "nat_host_limit");
}

TEST_P(NatCounts, WhatARevisionWithoutLimitsLeftIsNotCounted) {
  harness(nat(kDeterministic));
  EXPECT_EQ(out(udp(kHost, 2000)), "none");
  harness().apply(nat(both(kDeterministic, R"("mappings_per_host":2)"), 2));
  EXPECT_EQ(out(udp(kHost, 2000)), "none");
  EXPECT_EQ(out(udp(kHost, 2001)), "none");
  outlive_all_but(udp(kHost, 2001));
  EXPECT_EQ(harness().flows(), 1U);
  EXPECT_EQ(out(udp(kHost, 2002)), "none");
  EXPECT_EQ(out(udp(kHost, 2003)), "nat_host_limit");
  pass_time(301);
  EXPECT_EQ(keyed_records(), 0U);
}

TEST_P(NatCounts, WhatARevisionWithLimitsCountedEndsWithoutThem) {
  harness(nat(both(kDeterministic, R"("mappings_per_host":2)")));
  EXPECT_EQ(out(udp(kHost, 2000)), "none");
  EXPECT_EQ(out(udp(kHost, 2000, kOtherRemote)), "none");
  harness().apply(nat(kDeterministic, 2));
  EXPECT_EQ(out(udp(kHost, 2000)), "none");
  EXPECT_EQ(keyed_records(), 1U);
  pass_time(301);
  EXPECT_EQ(keyed_records(), 0U);
}

TEST_P(NatCounts, BlocksOfAnotherConfigurationEndWithTheirMappings) {
  harness(nat(kBlocks));
  const uint16_t port = port_of(udp(kHost, 2000));
  harness().apply(nat(R"("mappings_per_host":10)", 2));
  EXPECT_EQ(port_of(udp(kHost, 2000)), port);
  EXPECT_EQ(keyed_records(), 2U) << "the host and its block";
  pass_time(301);
  EXPECT_EQ(keyed_records(), 0U);
  EXPECT_EQ(leases(), 0U);
}

TEST_P(NatCounts, BlocksOfAnotherSizeAreGivenBack) {
  harness(nat(kBlocks));
  for (uint16_t port = 2000; port < 2200; ++port) EXPECT_EQ(out(udp(kHost, port)), "none");
  harness().apply(nat(R"("port_blocks":{"ports":64})", 2));
  while (harness().sweep_all() != 0) {
  }
  EXPECT_EQ(harness().flows(), 0U);
  EXPECT_EQ(keyed_records(), 0U);
  for (uint16_t port = 2000; port < 2065; ++port) {
    EXPECT_EQ(out(udp(kHost, port)), port < 2064 ? "none" : "nat_ports_exhausted");
  }
}

TEST_P(NatCounts, ContactsOfAnOpenFilterAreNotTakenBack) {
  harness(nat(R"("filtering":"endpoint_independent")"));
  EXPECT_EQ(out(udp(kHost, 2000, kRemote, 1)), "none");
  harness().apply(nat(R"("filtering":"address_dependent")", 2));
  const uint16_t port = port_of(udp(kHost, 2000, kRemote, 2));
  outlive_all_but(udp(kHost, 2000, kRemote, 2));
  EXPECT_EQ(harness().flows(), 1U);
  EXPECT_EQ(in(udp(kRemote, 3, kExternal, port)), "none") << "the contact is there";
}

// ---- Mappings that the configuration does not allow any more.

TEST_P(NatCounts, ANewFlowDoesNotInheritAStaleMapping) {
  harness(nat());
  EXPECT_EQ(external_of(udp(kHost, 40000)).first, kExternal);
  harness().apply(with(R"(["203.0.113.99"])", "", 2));
  EXPECT_EQ(external_of(udp(kHost, 40000, kOtherRemote)).first, "203.0.113.99");
  EXPECT_EQ(harness().flows(), 1U);
}

TEST_P(NatCounts, AStaleMappingOfSeveralFlowsIsNotKeptAlive) {
  harness(nat());
  EXPECT_EQ(out(udp(kHost, 40000, kRemote, 1)), "none");
  EXPECT_EQ(out(udp(kHost, 40000, kRemote, 2)), "none");
  harness().apply(with(R"(["203.0.113.99"])", "", 2));
  EXPECT_EQ(out(udp(kHost, 40000, kRemote, 3)), "nat_no_mapping");
  EXPECT_EQ(out(udp(kHost, 40000, kRemote, 1)), "nat_no_mapping") << "ends, and the other is left";
  EXPECT_EQ(external_of(udp(kHost, 40000, kRemote, 2)).first, "203.0.113.99");
  EXPECT_EQ(external_of(udp(kHost, 40000, kRemote, 3)).first, "203.0.113.99");
}

TEST_P(NatCounts, AMappingWhosePortIsForwardedToAnotherIsNotInherited) {
  harness(nat(R"("preserve_ports":true)"));
  EXPECT_EQ(port_of(udp(kOtherHost, 2050)), 2050);
  harness().apply(nat(kForward, 2));
  EXPECT_NE(port_of(udp(kOtherHost, 2050, kOtherRemote)), 2050);
  const Departure departure =
      harness().send(Side::kOutside, udp(kRemote, 1, kExternal, 2050).build());
  EXPECT_EQ(departure.frame, udp(kRemote, 1, kHost, 53).build());
}

TEST_P(NatCounts, FlowsOfAForwardThatIsNoMoreEnd) {
  harness(nat(kForward));
  EXPECT_EQ(in(udp(kRemote, 9, kExternal, 2050)), "none");
  harness().apply(nat("", 2));
  EXPECT_NE(port_of(udp(kHost, 53, kOtherRemote)), 2050);
  harness().sweep_all();
  EXPECT_EQ(harness().flows(), 1U);
}

TEST_P(NatCounts, TheOrderOfTheAddressesDoesNotMatter) {
  harness(with(kTwoAddresses, kBlocks));
  std::map<std::string, ExternalEndpoint> externals;
  for (int n = 1; n <= 60; ++n) {
    const std::string host = "10.1.0." + std::to_string(n);
    externals[host] = external_of(udp(host, 2000));
  }
  harness().apply(with(R"(["203.0.113.11","203.0.113.10"])", kBlocks, 2));
  harness().sweep_all();
  EXPECT_EQ(harness().flows(), externals.size());
  for (const auto& [host, external] : externals) {
    EXPECT_EQ(external_of(udp(host, 2000)), external);
    EXPECT_EQ(in(udp(kRemote, 5000, external.first, external.second)), "none");
  }
}

// ---- A full pool.

// Mappings of all hosts by their counts, of hosts 10.2.0.0 to 10.2.255.255.
class FullPool : public testing::TestWithParam<const char*> {
 protected:
  FullPool()
      : harness_({"test",
                  1,
                  {{"nat44",
                    R"({"external_addresses":["203.0.113.10"],)" + std::string(GetParam()) + "}"}}},
                 directory_, Crash::kNever, Pool::minimum_bytes()) {}
  static PacketBuilder packet_of(uint32_t host, uint16_t port) {
    return PacketBuilder::udp(
        "10.2." + std::to_string(host / 256) + "." + std::to_string(host % 256), port, kRemote, 53);
  }
  uint64_t counted() {
    uint64_t sum = 0;
    const Be16 owner = harness_.chain().elements()[0].place().owner;
    for (uint32_t bucket = 0; bucket < ChainHarness::kBuckets; ++bucket) {
      const KeyedState state(harness_.table(), bucket, owner);
      for (uint32_t host = 0; host < 65536; ++host) {
        const auto found = Subscribers::host(state, Be32::from_host(0x0a020000 + host));
        if (found) sum += found->mappings;
      }
    }
    return sum;
  }

  PoolDirectory directory_;
  ChainHarness harness_;
};
INSTANTIATE_TEST_SUITE_P(
    Configurations, FullPool,
    testing::Values(R"("mappings_per_host":1000)", R"("port_blocks":{"ports":64})",
                    R"("port_blocks":{"ports":64},"filtering":"address_dependent")"));

TEST_P(FullPool, AFlowThatDoesNotOpenIsNotCounted) {
  std::map<DropReason, uint32_t> seen;
  for (uint32_t n = 0; n < 6000; ++n) {
    const auto packet = packet_of(n / 3, static_cast<uint16_t>(2000 + n % 3)).build();
    ++seen[harness_.send(Side::kInside, packet).reason];
  }
  EXPECT_GT(seen[DropReason::kPoolFull], 100U);
  EXPECT_EQ(harness_.flows(), seen[DropReason::kNone]);
  EXPECT_EQ(counted(), seen[DropReason::kNone]);
  harness_.now_s += 301;
  while (harness_.sweep_all() != 0) {
  }
  EXPECT_EQ(harness_.flows(), 0U);
  for (uint32_t bucket = 0; bucket < ChainHarness::kBuckets; ++bucket) {
    EXPECT_EQ(harness_.table().keyed(bucket), 0U);
  }
}

}  // namespace
}  // namespace flowkeep
