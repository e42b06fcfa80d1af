#include "dataplane/pktgen/accounting.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace flowkeep::pktgen {
namespace {

using Arrival = Accounting::Arrival;
using Totals = Accounting::Totals;

constexpr Be32 kSource{0x0100000a};
constexpr Be16 kPort{0x0004};

Accounting accounting_of(uint32_t flows) {
  return Accounting::create(flows).value();
}

uint64_t lost(const Accounting& accounting, std::vector<uint64_t> sent) {
  return accounting.losses(sent).packets;
}

struct Case {
  const char* name;
  std::vector<uint32_t> sequences;
  uint64_t sent;
  Totals totals;
  uint64_t lost;
};

class AccountingTable : public testing::TestWithParam<Case> {};

TEST_P(AccountingTable, CountsWhatArrived) {
  const Case& expected = GetParam();
  Accounting accounting = accounting_of(1);
  for (const uint32_t sequence : expected.sequences)
    accounting.on_packet(0, sequence, kSource, kPort);
  EXPECT_EQ(accounting.totals().arrived, expected.totals.arrived);
  EXPECT_EQ(accounting.totals().duplicated, expected.totals.duplicated);
  EXPECT_EQ(accounting.totals().reordered, expected.totals.reordered);
  EXPECT_EQ(accounting.totals().too_late, expected.totals.too_late);
  EXPECT_EQ(lost(accounting, {expected.sent}), expected.lost);
}

constexpr uint32_t kWindow = Accounting::kWindow;

INSTANTIATE_TEST_SUITE_P(
    Arrivals, AccountingTable,
    testing::Values(
        Case{"nothing", {}, 5, {}, 5}, Case{"in_order", {0, 1, 2, 3}, 4, {4, 0, 0, 0, 0}, 0},
        Case{"one_lost", {0, 1, 3}, 4, {3, 0, 0, 0, 0}, 1},
        Case{"first_lost", {1, 2}, 3, {2, 0, 0, 0, 0}, 1},
        Case{"last_lost", {0, 1}, 3, {2, 0, 0, 0, 0}, 1},
        Case{"one_late", {0, 2, 1, 3}, 4, {4, 0, 1, 0, 0}, 0},
        Case{"two_late", {2, 0, 1, 3}, 4, {4, 0, 2, 0, 0}, 0},
        Case{"duplicate_at_once", {0, 1, 1, 2}, 3, {3, 1, 0, 0, 0}, 0},
        Case{"duplicate_of_the_first", {0, 0}, 1, {1, 1, 0, 0, 0}, 0},
        Case{"late_and_then_duplicate", {1, 0, 0}, 2, {2, 1, 1, 0, 0}, 0},
        Case{"duplicate_does_not_hide_a_loss", {0, 0, 2}, 3, {2, 1, 0, 0, 0}, 1},
        Case{"oldest_of_the_window_is_late",
             {kWindow, 1},
             kWindow + 1,
             {2, 0, 1, 0, 0},
             kWindow - 1},
        Case{"beyond_the_window_is_too_late", {kWindow, 0}, kWindow + 1, {1, 0, 0, 1, 0}, kWindow},
        Case{"oldest_of_the_window_twice",
             {kWindow, 1, 1},
             kWindow + 1,
             {2, 1, 1, 0, 0},
             kWindow - 1},
        Case{"hole_is_empty_when_its_slot_comes_again",
             {5, kWindow + 6, kWindow + 5},
             kWindow + 7,
             {3, 0, 1, 0, 0},
             kWindow + 4}),
    [](const auto& info) { return std::string(info.param.name); });

TEST(Accounting, FlowsAreApart) {
  Accounting accounting = accounting_of(3);
  EXPECT_EQ(accounting.on_packet(0, 0, kSource, kPort), Arrival::kInOrder);
  EXPECT_EQ(accounting.on_packet(2, 0, kSource, kPort), Arrival::kInOrder);
  EXPECT_EQ(accounting.on_packet(2, 1, kSource, kPort), Arrival::kInOrder);
  EXPECT_EQ(accounting.on_packet(3, 0, kSource, kPort), Arrival::kUnknownFlow);
  EXPECT_EQ(accounting.flows_seen(), 2u);
  EXPECT_EQ(accounting.losses(std::vector<uint64_t>{2, 1, 3}), (Accounting::Losses{3, 3}));
}

// Sequence numbers are 32 bits wide; the counts are not.
TEST(Accounting, SequenceNumbersWrap) {
  Accounting accounting = accounting_of(1);
  uint64_t next = 0;
  for (const uint64_t jump : {0x7fffffffull, 0xfffffff0ull, 0x100000002ull, 0x17ffffff0ull}) {
    next = jump;
    EXPECT_EQ(accounting.on_packet(0, static_cast<uint32_t>(next), kSource, kPort),
              Arrival::kInOrder)
        << jump;
    EXPECT_EQ(accounting.on_packet(0, static_cast<uint32_t>(next), kSource, kPort),
              Arrival::kDuplicate);
    EXPECT_EQ(accounting.on_packet(0, static_cast<uint32_t>(next - 3), kSource, kPort),
              Arrival::kReordered);
  }
  EXPECT_EQ(lost(accounting, {next + 1}), next + 1 - 8);
}

TEST(Accounting, MappingChangeIsCountedOnceAFlow) {
  Accounting accounting = accounting_of(2);
  accounting.on_packet(0, 0, kSource, kPort);
  accounting.on_packet(1, 0, kSource, Be16{9});
  EXPECT_EQ(accounting.totals().mapping_changes, 0u);
  EXPECT_EQ(accounting.distinct_sources(), 2u);
  accounting.on_packet(0, 1, kSource, Be16{7});
  accounting.on_packet(0, 2, Be32{77}, kPort);
  EXPECT_EQ(accounting.totals().mapping_changes, 1u);
  accounting.on_packet(1, 1, kSource, Be16{9});
  EXPECT_EQ(accounting.totals().mapping_changes, 1u);
  EXPECT_EQ(accounting.distinct_sources(), 2u);
}

// Against a model that remembers everything.
TEST(Accounting, AgreesWithAModelOnRandomArrivals) {
  const uint32_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 engine(seed);
  const auto random = [&] { return static_cast<uint32_t>(engine()); };
  constexpr uint32_t kFlows = 5, kSent = 20'000;
  Accounting accounting = accounting_of(kFlows);
  std::vector<std::vector<bool>> came(kFlows, std::vector<bool>(kSent));
  std::vector<uint32_t> next(kFlows, 0);
  Totals model;
  for (uint32_t step = 0; step < 60'000; ++step) {
    const uint32_t flow = random() % kFlows;
    const uint32_t span = std::min<uint32_t>(next[flow], kWindow);
    const bool forward = span == 0 || random() % 3 != 0;
    const uint32_t sequence = forward ? next[flow] + (random() % 8 == 0 ? random() % 40 : 0)
                                      : next[flow] - 1 - random() % span;
    if (sequence >= kSent) continue;
    if (came[flow][sequence]) {
      ++model.duplicated;
    } else {
      ++model.arrived;
      model.reordered += sequence < next[flow];
    }
    came[flow][sequence] = true;
    next[flow] = std::max(next[flow], sequence + 1);
    accounting.on_packet(flow, sequence, kSource, kPort);
  }
  EXPECT_EQ(accounting.totals(), model);
  EXPECT_EQ(lost(accounting, std::vector<uint64_t>(kFlows, kSent)),
            uint64_t{kFlows} * kSent - model.arrived);
}

}  // namespace
}  // namespace flowkeep::pktgen
