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

}  // namespace
}  // namespace flowkeep
