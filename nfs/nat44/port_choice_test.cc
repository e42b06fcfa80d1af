// PortChoice: what a search for a free port costs at most, and that it finds one all the same.
#include "nfs/nat44/port_choice.h"

#include <set>

#include "nfs/nat44/nat_fixture.h"

namespace flowkeep {
namespace {

constexpr uint32_t kBucket = 3, kFirstUnitUsed = 32;

nfs::Nat44Config config(uint32_t addresses, uint32_t units) {
  nfs::Nat44Config made;
  for (uint32_t n = 0; n < addresses; ++n) {
    made.add_external_addresses("203.0.113." + std::to_string(10 + n));
  }
  made.mutable_port_range()->set_first(kFirstUnitUsed * kUnitPorts);
  made.mutable_port_range()->set_last((kFirstUnitUsed + units) * kUnitPorts - 1);
  return made;
}

// Ports in use, and a host that wants one more.
class Search {
 public:
  explicit Search(const nfs::Nat44Config& config)
      : settings(*read_nat44_settings(config, "config")),
        harness_({"test", 1, {{"nat44", R"({"external_addresses":["203.0.113.10"]})"}}},
                 directory_) {}

  // All ports of the units but `holes`, of the first address.
  void fill(const PortUnits& units, const std::set<uint32_t>& holes = {}) {
    FlowTable& table = harness_.table();
    for (uint32_t unit = units.first; unit < units.first + units.count; ++unit) {
      table.lease_acquire(units.address, unit, kBucket);
      for (uint32_t port = unit * kUnitPorts; port < (unit + 1) * kUnitPorts; ++port) {
        if (holes.contains(port)) continue;
        const Endpoint external{
            settings.addresses[units.address], Be16::from_host(static_cast<uint16_t>(port)), {}};
        const FlowKey inside = inside_key(units.address, port);
        const auto opened = table.open_mapped(kBucket, inside, translated_key(inside, external), 0);
        ASSERT_EQ(opened.status, OpenStatus::kOk);
        harness_.commit();
      }
    }
  }
  // How a search for one more mapping ends at that time.
  template <typename Choose>
  std::optional<uint32_t> search(uint32_t now_s, Choose&& choose) {
    PacketMeta meta;
    const Packet packet{nullptr, &meta, 0};
    const auto undo = std::make_unique<UndoLog>();
    EventStage events;
    OpeningFlow opening{inside_key(9, 1), Side::kInside, kBucket, harness_.table(),
                        packet,           *undo,         events,  now_s};
    AnyNewFlow flow(opening, {});
    PortChoice choice(settings, flow);
    const auto external = choose(choice);
    most_probes = std::max(most_probes, choice.probes());
    return external ? std::optional<uint32_t>(external->port.host()) : std::nullopt;
  }

  Nat44Settings settings;
  uint32_t most_probes = 0;

 private:
  static FlowKey inside_key(uint32_t host, uint32_t port) {
    return {Be32::from_host(0x0a000002 + host),
            Be32::from_host(0xc6336407),
            Be16::from_host(static_cast<uint16_t>(port)),
            Be16::from_host(53),
            kProtocolUdp,
            Side::kInside};
  }
  PoolDirectory directory_;
  ChainHarness harness_;
};

constexpr uint32_t kQuick = PortChoice::kQuickUnits * PortChoice::kQuickProbes;

TEST(PortChoice, AFullBlockCostsABoundedSearch) {
  Search search(config(1, 48));
  const PortUnits all{0, kFirstUnitUsed, 48};
  search.fill(all);
  for (uint32_t now_s = 0; now_s < 9; ++now_s) {
    EXPECT_FALSE(search.search(now_s, [&](PortChoice& choice) { return choice.within(all); }));
  }
  EXPECT_LE(search.most_probes, PortChoice::kMostProbes + kQuick);
  for (uint32_t now_s = 0; now_s < 9; ++now_s) {
    EXPECT_FALSE(search.search(now_s, [](PortChoice& choice) { return choice.shared(); }));
  }
  EXPECT_LE(search.most_probes, PortChoice::kMostProbes + kQuick);
}

TEST(PortChoice, TheLastPortOfABlockIsFoundAtOnceIfASearchSeesAllOfThem) {
  constexpr uint32_t kUnits = PortChoice::kMostProbes / kUnitPorts;
  Search search(config(1, kUnits));
  const uint32_t hole = kFirstUnitUsed * kUnitPorts + 777;
  search.fill({0, kFirstUnitUsed, kUnits}, {hole});
  const PortUnits halves[] = {{0, kFirstUnitUsed, kUnits / 2},
                              {0, kFirstUnitUsed + kUnits / 2, kUnits / 2}};
  EXPECT_EQ(search.search(5, [&](PortChoice& choice) { return choice.within(halves); }), hole);
  EXPECT_EQ(search.search(5, [](PortChoice& choice) { return choice.shared(); }), hole);
}

TEST(PortChoice, TheLastPortOfManyIsFoundWithinAFewSeconds) {
  constexpr uint32_t kUnits = 64, kSeconds = kUnits * kUnitPorts / PortChoice::kMostProbes;
  Search search(config(1, kUnits));
  const uint32_t hole = kFirstUnitUsed * kUnitPorts + 3333;
  search.fill({0, kFirstUnitUsed, kUnits}, {hole});
  const PortUnits halves[] = {{0, kFirstUnitUsed, kUnits / 2},
                              {0, kFirstUnitUsed + kUnits / 2, kUnits / 2}};
  uint32_t within = 0, shared = 0;
  for (uint32_t now_s = 100; now_s < 100 + kSeconds; ++now_s) {
    within +=
        search.search(now_s, [&](PortChoice& choice) { return choice.within(halves); }) == hole;
    shared += search.search(now_s, [](PortChoice& choice) { return choice.shared(); }) == hole;
  }
  EXPECT_GE(within, 1U);
  EXPECT_GE(shared, 1U);
  EXPECT_LE(search.most_probes, PortChoice::kMostProbes + 2 * kQuick);
}

TEST(PortChoice, SeveralAddressesShareTheSearch) {
  nfs::Nat44Config relaxed = config(4, 16);
  relaxed.set_pooling("paired_if_possible");
  Search search(relaxed);
  for (uint32_t address = 0; address < 4; ++address) {
    search.fill({address, kFirstUnitUsed, 16});
  }
  EXPECT_FALSE(search.search(5, [](PortChoice& choice) { return choice.shared(); }));
  EXPECT_LE(search.most_probes, PortChoice::kMostProbes + 4 * kQuick);
}

// A unit that nobody holds is taken before the last ports of those that are full are looked for.
TEST(PortChoice, ABucketIsNotKeptToTheUnitsThatASearchSees) {
  Search search(config(1, 60));
  search.fill({0, kFirstUnitUsed, 59});
  const auto found = search.search(5, [](PortChoice& choice) { return choice.shared(); });
  ASSERT_TRUE(found);
  EXPECT_EQ(*found / kUnitPorts, kFirstUnitUsed + 59);
}

}  // namespace
}  // namespace flowkeep
