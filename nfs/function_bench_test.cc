// The bench finds what it is there for: a function that keeps in its soft state what it must not
// lose.
#include "nfs/function_bench.h"

#include <gtest/gtest-spi.h>

#include "nfs/firewall/firewall.h"

namespace flowkeep {
namespace {

// Lets two packets of each worker pass.
class Forgetful {
 public:
  using Config = nfs::FirewallConfig;
  static constexpr std::string_view kType = "forgetful";
  static constexpr Scope kScope = Scope::kFlow;
  struct Hard {
    uint8_t unused;
  };
  struct Soft {
    uint32_t packets = 0;
  };

  Soft make_soft() const { return {}; }
  Decision open(NewFlow<Forgetful>&, Soft&) const { return Decision::accept(); }
  bool still_allowed(const FlowKey&, Side, const Hard&, Soft&) const { return true; }
  void process(Burst<Forgetful>& burst, Soft& soft) const {
    burst.for_each([&soft](FlowPacket<Forgetful>& packet) {
      if (++soft.packets > 2) packet.drop(DropReason::kFirewallDenied);
    });
  }
};

std::unique_ptr<AnyFunction> make_forgetful(std::string_view type) {
  if (type != Forgetful::kType) return nullptr;
  return std::make_unique<Function<Forgetful>>(Forgetful{});
}

// What the table of one case reports, in all modes together.
std::string reports(const TableCase& test) {
  testing::TestPartResultArray results;
  {
    using Reporter = testing::ScopedFakeTestPartResultReporter;
    Reporter reporter(Reporter::INTERCEPT_ONLY_CURRENT_THREAD, &results);
    run_table(chain_of("forgetful"), {test}, make_forgetful);
  }
  std::string text;
  for (int i = 0; i < results.size(); ++i) text += results.GetTestPartResult(i).message();
  return text;
}

const Passage kPacket = from_inside(PacketBuilder::udp("10.0.0.2", 4000, "192.0.2.1", 53));

TEST(FunctionBench, FindsWhatAWorkerForgets) {
  const Passage refused = kPacket.dropped(DropReason::kFirewallDenied);
  const std::string text = reports({.what = "the third packet is too much",
                                    .bursts = {{kPacket}, {kPacket}, {refused}},
                                    .after = {flow<Forgetful>(kPacket, {0}, FlowPhase::kOpening)}});
  EXPECT_EQ(text.find(": plain\n"), std::string::npos) << text;
  EXPECT_NE(text.find("with a crash in every burst"), std::string::npos) << text;
  EXPECT_NE(text.find("handed over after every burst"), std::string::npos) << text;
}

TEST(FunctionBench, FindsEachDifference) {
  const FlowState right = flow<Forgetful>(kPacket, {0}, FlowPhase::kOpening);
  EXPECT_EQ(reports({.what = "right", .bursts = {{kPacket}}, .after = {right}}), "");
  EXPECT_NE(
      reports(
          {.what = "packet", .bursts = {{kPacket.dropped(DropReason::kNoFlow)}}, .after = {right}}),
      "");
  EXPECT_NE(reports({.what = "number of flows", .bursts = {{kPacket}}}), "");
  EXPECT_NE(reports({.what = "hard state",
                     .bursts = {{kPacket}},
                     .after = {flow<Forgetful>(kPacket, {1}, FlowPhase::kOpening)}}),
            "");
  EXPECT_NE(reports({.what = "phase",
                     .bursts = {{kPacket}},
                     .after = {flow<Forgetful>(kPacket, {0}, FlowPhase::kEstablished)}}),
            "");
  EXPECT_NE(reports({.what = "counters",
                     .bursts = {{kPacket}},
                     .after = {right},
                     .counters = {{{"expired", 1}}}}),
            "");
}

TEST(FunctionBench, ComparesAddressesOfIpv6KeyedStateAndLeases) {
  PoolDirectory directory;
  const std::string config =
      R"({"external_addresses":["203.0.113.10"],"filtering":"address_dependent"})";
  ChainHarness harness(chain_of("nat44", config), directory);
  const auto has = [&harness](const std::string& what) {
    const std::set<std::string> state = function_bench::durable_state(harness);
    return std::ranges::any_of(
        state, [&what](const std::string& text) { return text.find(what) != std::string::npos; });
  };
  harness.send(Side::kInside, PacketBuilder::udp("2001:db8::2", 1, "2001:db8:1::7", 53).build());
  EXPECT_TRUE(
      has(" addresses 20010db8000000000000000000000002"
          "20010db8000100000000000000000007 "));
  EXPECT_FALSE(has(" addresses none "));
  EXPECT_FALSE(has(" phase 6 "));
  EXPECT_FALSE(has(" block "));
  harness.send(Side::kInside, PacketBuilder::udp("10.0.0.2", 4000, "192.0.2.1", 53).build());
  EXPECT_TRUE(has(" addresses none "));
  EXPECT_TRUE(has(" phase 6 "));
  EXPECT_TRUE(has("address 0 block "));
}

}  // namespace
}  // namespace flowkeep
