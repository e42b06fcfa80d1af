// Table tests of functions: state before, packets in, packets out, hard state after, counter
// changes. Each case runs three times on equal pools: plain, with a crash and a recovery in every
// burst, and with the buckets handed to another worker after every burst. All three must end as the
// table says, and alike to the last byte of each flow's state.
//
//   const Passage hello = from_inside(PacketBuilder::udp("10.0.0.2", 4000, "192.0.2.1", 53));
//   run_table(chain_of("dscp", R"({"otherwise": 8})"), {
//       {.what = "a flow keeps the mark that it has",
//        .before = {flow<Dscp>(hello, {.dscp = 46}, FlowPhase::kEstablished)},
//        .bursts = {{hello.becomes(marked_46)}, later(200, {hello.becomes(marked_46)})},
//        .after = {flow<Dscp>(hello, {.dscp = 46}, FlowPhase::kEstablished)}},
//   });
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <initializer_list>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <type_traits>
#include <vector>

#include "nfs/chain_harness.h"

namespace flowkeep {

// One packet and what becomes of it: by itself, it passes as it is.
struct Passage {
  Arrival in;
  Departure out;

  Passage becomes(const PacketBuilder& packet) const {
    return {in, {DropReason::kNone, packet.build()}};
  }
  Passage dropped(DropReason reason) const { return {in, {reason, {}}}; }
  // Dropped, and its sender is told so.
  Passage answered(DropReason reason, const PacketBuilder& answer) const {
    return {in, {reason, answer.build()}};
  }
};
inline Passage from(Side side, const PacketBuilder& packet) {
  const Bytes frame = packet.build();
  return {{side, frame}, {DropReason::kNone, frame}};
}
inline Passage from_inside(const PacketBuilder& packet) {
  return from(Side::kInside, packet);
}
inline Passage from_outside(const PacketBuilder& packet) {
  return from(Side::kOutside, packet);
}

// Packets that a worker takes at once.
struct TableBurst {
  TableBurst(std::initializer_list<Passage> passages) : packets(passages) {}
  std::vector<Passage> packets;
  uint32_t pause_s = 0;  // before it
};
inline TableBurst later(uint32_t pause_s, std::initializer_list<Passage> packets) {
  TableBurst burst(packets);
  burst.pause_s = pause_s;
  return burst;
}

// A flow, named by any packet of it that has the keys of its initiator, with what one function of
// the chain keeps of it.
struct FlowState {
  Arrival packet;
  FlowPhase phase;
  std::string_view function;
  Bytes hard;
};
template <typename F>
FlowState flow(const Passage& named_by, const typename F::Hard& hard, FlowPhase phase) {
  static_assert(std::has_unique_object_representations_v<typename F::Hard>,
                "padding would be compared");
  const auto* bytes = reinterpret_cast<const uint8_t*>(&hard);
  return {named_by.in, phase, F::kType, Bytes(bytes, bytes + sizeof(hard))};
}

using CounterChanges = std::map<std::string, uint64_t>;

struct TableCase {
  std::string what;
  std::vector<FlowState> before = {};
  std::vector<TableBurst> bursts;
  // Every flow that there is then.
  std::vector<FlowState> after = {};
  // Every counter that changes, but those of packets forwarded and dropped, which `bursts` tells.
  // Empty: any may.
  std::optional<CounterChanges> counters = {};
};

inline ChainSpec chain_of(const std::string& type, const std::string& config = "") {
  return {"test", 1, {{type, config}}};
}

namespace function_bench {

// How a case ends in one mode; the modes are compared by it.
struct Outcome {
  std::vector<Departure> departures;
  std::set<std::string> state;  // what is durable, as text
  CounterChanges counters;
  friend bool operator==(const Outcome&, const Outcome&) = default;
};

inline std::string hex(std::span<const uint8_t> bytes) {
  std::string text;
  for (const uint8_t byte : bytes) {
    text += "0123456789abcdef"[byte >> 4];
    text += "0123456789abcdef"[byte & 15];
  }
  return text;
}
template <typename T>
std::string hex_of(const T& value) {
  return hex({reinterpret_cast<const uint8_t*>(&value), sizeof(value)});
}

// Without what may differ: where the record lies, and its soft words.
inline std::string durable_text(ChainHarness& harness, RecordId id, const FlowRecord& record) {
  const std::span<const std::byte> extent = harness.table().extent(id);
  return "inside " + hex_of(record.inside_key) + " outside " + hex_of(record.outside_key) +
         " phase " + std::to_string(static_cast<int>(record.phase)) + " from " +
         std::to_string(static_cast<int>(record.initiator)) + " bucket " +
         std::to_string(record.bucket) + " revision " + std::to_string(record.revision) +
         " opened " + std::to_string(record.opened_s) + " users " + std::to_string(record.users) +
         " addresses " + (record.is_wide() ? hex_of(record.addresses) : "none") + " hard " +
         hex(record.hard) + " extent " +
         hex({reinterpret_cast<const uint8_t*>(extent.data()), extent.size()});
}

// Of flows and of keyed state, and which bucket has leased which block of ports.
inline std::set<std::string> durable_state(ChainHarness& harness) {
  std::set<std::string> texts;
  harness.pool().for_each_record(harness.chain_index(), [&](RecordId id, const FlowRecord& record) {
    texts.insert(durable_text(harness, id, record));
    return true;
  });
  const uint32_t* leases = harness.pool().port_leases(harness.chain_index());
  for (size_t i = 0; i < harness.chain().external_addresses().size() * kPortBlocks; ++i) {
    if (leases[i] == 0) continue;
    texts.insert("address " + std::to_string(i / kPortBlocks) + " block " +
                 std::to_string(i % kPortBlocks) + " bucket " + std::to_string(leases[i] - 1));
  }
  return texts;
}

inline CounterChanges counters_of(const ChainHarness& harness) {
  CounterChanges changes;
  for (const auto& [name, count] : harness.counted()) changes[name] = count;
  const RuntimeCounters counters = harness.counters();
  for (const auto& [name, counter] : kRuntimeCounters) {
    if (counters.*counter != 0) changes[name] = counters.*counter;
  }
  return changes;
}

inline const Chain::Element* element_of(const Chain& chain, std::string_view type) {
  for (const Chain::Element& element : chain.elements()) {
    if (element.function->type() == type) return &element;
  }
  return nullptr;
}

inline void install(ChainHarness& harness, const FlowState& state) {
  const Chain::Element* element = element_of(harness.chain(), state.function);
  ASSERT_NE(element, nullptr) << state.function;
  std::array<uint8_t, kHardStateBytes> hard{};
  std::ranges::copy(state.hard, hard.begin() + static_cast<ptrdiff_t>(element->hard_offset));
  harness.install(state.packet.side, state.packet.frame, state.phase, hard.data());
}

inline void expect(ChainHarness& harness, const FlowState& state) {
  const Chain::Element* element = element_of(harness.chain(), state.function);
  ASSERT_NE(element, nullptr) << state.function;
  const auto record = harness.flow_of(state.packet.side, state.packet.frame);
  ASSERT_TRUE(record) << "no such flow";
  EXPECT_EQ(record->phase, state.phase);
  EXPECT_EQ(hex({record->hard + element->hard_offset, state.hard.size()}), hex(state.hard));
}

inline void expect(const Departure& departure, const Passage& passage) {
  EXPECT_EQ(drop_reason_name(departure.reason), drop_reason_name(passage.out.reason));
  EXPECT_EQ(hex(departure.frame), hex(passage.out.frame));
  EXPECT_EQ(departure.frame.empty() ? "" : checksum_faults(departure.frame), "");
}

inline Outcome play(const TableCase& test, ChainHarness& harness) {
  Outcome outcome;
  for (const FlowState& state : test.before) install(harness, state);
  for (size_t n = 0; n < test.bursts.size(); ++n) {
    const TableBurst& burst = test.bursts[n];
    harness.now_s += burst.pause_s;
    std::vector<Arrival> arrivals;
    for (const Passage& passage : burst.packets) arrivals.push_back(passage.in);
    const std::vector<Departure> departures = harness.burst(arrivals);
    for (size_t i = 0; i < departures.size(); ++i) {
      SCOPED_TRACE("burst " + std::to_string(n) + ", packet " + std::to_string(i));
      expect(departures[i], burst.packets[i]);
      outcome.departures.push_back(departures[i]);
    }
  }
  for (size_t i = 0; i < test.after.size(); ++i) {
    SCOPED_TRACE("flow " + std::to_string(i) + " afterwards");
    expect(harness, test.after[i]);
  }
  EXPECT_EQ(harness.flows(), test.after.size()) << "flows afterwards";
  outcome.state = durable_state(harness);
  outcome.counters = counters_of(harness);
  EXPECT_EQ(outcome.counters, test.counters.value_or(outcome.counters));
  return outcome;
}

inline const char* name_of(Mode mode) {
  switch (mode) {
    case Mode::kPlain:
      return "plain";
    case Mode::kCrash:
      return "with a crash in every burst";
    case Mode::kHandover:
      return "handed over after every burst";
  }
  return "";
}

}  // namespace function_bench

inline constexpr uint64_t kBenchPoolBytes = 8 << 20;

// Runs `play(harness)` in each mode, on copies of one pool: with the same hash secret, on which a
// function's choices may depend. What it returns must be the same each time.
template <typename Play>
void run_in_every_mode(const ChainSpec& chain, Play&& play, const MakeFunction& make = {}) {
  PoolDirectory formatted;
  open_pool(formatted, kBenchPoolBytes);
  std::optional<std::invoke_result_t<Play&, ChainHarness&>> plain;
  for (const Mode mode : kEveryMode) {
    SCOPED_TRACE(function_bench::name_of(mode));
    PoolDirectory directory;
    std::filesystem::copy_file(formatted.file(), directory.file());
    ChainHarness harness(chain, directory, mode, kBenchPoolBytes, make);
    auto outcome = play(harness);
    if (!plain) plain = std::move(outcome);
    // The table has told what differs, if it knows; this tells the rest.
    if (mode != Mode::kPlain && !testing::Test::HasFailure()) {
      EXPECT_TRUE(outcome == *plain) << "ends otherwise than plain";
    }
  }
}

// `make`: of functions that are not built in.
inline void run_table(const ChainSpec& chain, const std::vector<TableCase>& cases,
                      const MakeFunction& make = {}) {
  for (const TableCase& test : cases) {
    SCOPED_TRACE(test.what);
    run_in_every_mode(
        chain, [&](ChainHarness& harness) { return function_bench::play(test, harness); }, make);
  }
}

}  // namespace flowkeep
