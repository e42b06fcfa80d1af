// For tests: a chain with a state pool of its own, and a stand-in for switch and worker around it.
// Frames go in and come out as bytes. Table tests: nfs/function_bench.h.
#pragma once

#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "nfs/chain_runtime.h"
#include "nfs/firewall/linear_classifier.h"
#include "nfs/packet_builder.h"
#include "nfs/parse.h"
#include "nfs/steering.h"
#include "state/layout_table.h"
#include "state/pool_test_support.h"

namespace flowkeep {

struct Arrival {
  Side side;
  Bytes frame;
};
struct Departure {
  DropReason reason = DropReason::kNone;  // kNone: forwarded
  Bytes frame;  // as it was forwarded, or, with a reason, answered; empty: dropped
  friend bool operator==(const Departure&, const Departure&) = default;
};

// What befalls the workers; nothing that goes out, or lies in the pool, may depend on it.
enum class Mode : uint8_t {
  kPlain,
  // The worker dies in each burst, before and after the commit in turn, and its successor has
  // nothing but the pool and the undo log.
  kCrash,
  // After each burst the buckets go to another worker and after the next one back. Each has a log
  // and soft state of its own, and what one has committed is retired before the other goes on.
  kHandover,
  kNever = kPlain,
  kEveryBurst = kCrash,
};
using Crash = Mode;
inline constexpr std::array kEveryMode = {Mode::kPlain, Mode::kCrash, Mode::kHandover};

// Each of RuntimeCounters, by its name.
inline constexpr std::pair<const char*, uint64_t RuntimeCounters::*> kRuntimeCounters[] = {
    {"opened", &RuntimeCounters::opened},
    {"reopened", &RuntimeCounters::reopened},
    {"expired", &RuntimeCounters::expired},
    {"revised", &RuntimeCounters::revised},
    {"revised_away", &RuntimeCounters::revised_away},
};
static_assert(sizeof(RuntimeCounters) == std::size(kRuntimeCounters) * sizeof(uint64_t));

inline void add(RuntimeCounters& sum, const RuntimeCounters& counters) {
  for (const auto& [name, counter] : kRuntimeCounters) sum.*counter += counters.*counter;
}

using MakeFunction = std::function<std::unique_ptr<AnyFunction>(std::string_view)>;

inline std::unique_ptr<Chain> must_build(const ChainSpec& spec, MakeFunction make_function = {}) {
  FunctionContext context;
  context.make_function = std::move(make_function);
  context.make_classifier = [] { return std::make_unique<LinearClassifier>(); };
  auto chain = Chain::build(spec, context);
  if (chain.ok()) return std::move(*chain);
  ADD_FAILURE() << chain.error().text();
  return nullptr;
}

class ChainHarness {
 public:
  static constexpr uint32_t kBuckets = 16;
  static constexpr uint64_t kPoolBytes = 64 << 20;

  // The directory's pool is made if it is not there, otherwise used as it is. `make_function`: of
  // functions that are not built in.
  ChainHarness(const ChainSpec& spec, const PoolDirectory& directory, Mode mode = Mode::kPlain,
               uint64_t pool_bytes = kPoolBytes, MakeFunction make_function = {})
      : ChainHarness(spec, open_pool(directory, pool_bytes), mode, std::move(make_function)) {}
  // The chain "test" in it is attached, or found.
  ChainHarness(const ChainSpec& spec, std::shared_ptr<Pool> pool, Mode mode,
               MakeFunction make_function = {})
      : mode_(mode),
        make_function_(std::move(make_function)),
        pool_(std::move(pool)),
        undo_(std::make_unique<UndoLog>()) {
    const auto attached = pool_->attach_chain("test", kBuckets);
    EXPECT_TRUE(attached.ok());
    chain_index_ = attached->index;
    apply(spec);
  }

  // Another revision, with workers of its own.
  void apply(const ChainSpec& spec) {
    bury_workers();
    buried_ = {};
    chain_ = must_build(spec, make_function_);
    const auto attached =
        LayoutTable(*pool_, chain_index_).attach(chain_->revision(), chain_->state_layout(), {});
    EXPECT_TRUE(attached.ok()) << (attached.ok() ? "" : attached.error().text());
    start_worker();
  }

  std::vector<Departure> burst(const std::vector<Arrival>& arrivals) {
    std::vector<Departure> departures(arrivals.size());
    std::vector<Inside> queue;
    for (size_t i = 0; i < arrivals.size(); ++i) {
      Inside packet{i, arrivals[i].frame, {}};
      departures[i].reason = admit(arrivals[i], packet.meta);
      if (departures[i].reason == DropReason::kNone) queue.push_back(std::move(packet));
    }
    for (size_t done = 0; done < queue.size();) {
      const std::span<Inside> rest = std::span(queue).subspan(done);
      const size_t ran = run_and_commit(rest);
      for (const Inside& packet : rest.first(ran)) {
        departures[packet.index] = departure_of(packet, arrivals[packet.index]);
        count(packet.meta);
      }
      done += ran;
      if (mode_ == Mode::kHandover) hand_over();
    }
    return departures;
  }
  Departure send(Side side, const Bytes& frame) { return burst({{side, frame}}).front(); }

  // The flow that a frame belongs to, as it lies in the pool.
  std::optional<FlowRecord> flow_of(Side side, const Bytes& frame) {
    PacketMeta meta;
    if (admit({side, frame}, meta) != DropReason::kNone) return std::nullopt;
    const RecordId id = table_->find(meta.bucket, meta.key, meta.hash, meta.wide_addresses());
    return id == 0 ? std::nullopt : std::optional(table_->record(id));
  }

  // Puts a flow into the pool as if `frame` had opened it long ago. `hard`: of all functions. The
  // port block of a translated one is leased.
  void install(Side side, const Bytes& frame, FlowPhase phase, const uint8_t* hard) {
    PacketMeta meta;
    ASSERT_EQ(admit({side, frame}, meta), DropReason::kNone);
    const FlowKey inside = side == Side::kInside ? meta.key : meta.key.reversed();
    const FlowKey outside = chain_->outside_key(inside, hard);
    const FlowTable::Opened opened = table_->open(meta.bucket, inside, outside);
    ASSERT_EQ(opened.status, OpenStatus::kOk);
    FlowRecord& record = table_->stage(opened.id);
    record.phase = phase;
    record.initiator = side;
    record.revision = chain_->revision();
    record.opened_s = record.last_seen_s = now_s;
    std::memcpy(record.hard, hard, kHardStateBytes);
    const std::span<const Be32> external = chain_->external_addresses();
    const auto address = std::find(external.begin(), external.end(), outside.dst);
    if (address != external.end()) {
      table_->lease_acquire(static_cast<uint32_t>(address - external.begin()),
                            static_cast<uint32_t>(outside.dst_port.host() / kPortBlockPorts),
                            meta.bucket);
    }
    commit();
  }

  uint32_t sweep_all() {
    uint32_t closed = 0;
    for (uint32_t bucket = 0; bucket < kBuckets; ++bucket) {
      closed += runtime_->sweep({&bucket, 1}, 1000, now_s);
      if (table_->dirty()) commit();
    }
    return closed;
  }

  uint64_t flows() const { return pool_->count_flows(chain_index_); }
  // Packets that functions counted, by the counters' names; as the switch does.
  const std::map<std::string, uint64_t>& counted() const { return counted_; }
  // Of all workers of the revision; what a burst counted that was not committed is not in it.
  RuntimeCounters counters() const {
    RuntimeCounters sum = buried_;
    add(sum, runtime_->counters());
    if (other_.runtime) add(sum, other_.runtime->counters());
    return sum;
  }
  // Events of committed bursts, with their counters' names.
  const std::vector<std::pair<std::string, FunctionEvent>>& told() const { return told_; }
  const Chain& chain() const { return *chain_; }
  FlowTable& table() { return *table_; }
  const Pool& pool() const { return *pool_; }
  uint32_t chain_index() const { return chain_index_; }
  // Runs packets from the inside and leaves what they changed staged, for commit(). Returns how
  // many ran.
  size_t run_uncommitted(const std::vector<Bytes>& frames) {
    std::vector<Inside> queue;
    for (const Bytes& frame : frames) {
      queue.push_back({queue.size(), frame, {}});
      EXPECT_EQ(admit({Side::kInside, frame}, queue.back().meta), DropReason::kNone);
    }
    const size_t ran = run(queue);
    for (size_t i = 0; i < queue.size(); ++i) {
      EXPECT_EQ(queue[i].frame != frames[i], i < ran) << "packet " << i;
    }
    return ran;
  }
  void commit() {
    hear_events();
    table_->commit({});
    table_->apply();
  }

  uint32_t now_s = 1'000'000;
  uint32_t resumed_s = 0;  // of workers made from now on: when their node started

 private:
  struct Inside {
    size_t index;
    Bytes frame;
    PacketMeta meta;
  };

  // A worker whose turn it is not.
  struct Resting {
    std::unique_ptr<FlowTable> table;
    std::unique_ptr<ChainRuntime> runtime;
  };

  void start_worker() {
    table_ = std::make_unique<FlowTable>(*pool_, chain_index_, log_);
    runtime_ = std::make_unique<ChainRuntime>(*chain_, *table_, chain_->revision(), resumed_s);
  }

  void bury_workers() {
    if (runtime_) add(buried_, runtime_->counters());
    if (other_.runtime) add(buried_, other_.runtime->counters());
    other_.runtime.reset();
    other_.table.reset();
    runtime_.reset();
    table_.reset();
  }

  // As the switch does it when the old owner has returned everything.
  void hand_over() {
    RedoLog log(*pool_, log_);
    log.retire(log.applied());
    log_ ^= 1;
    std::swap(table_, other_.table);
    std::swap(runtime_, other_.runtime);
    if (!runtime_) start_worker();
  }

  // What the switch does: parse and steer.
  DropReason admit(const Arrival& arrival, PacketMeta& meta) {
    const Bytes& frame = arrival.frame;
    const DropReason reason = parse(frame.data(), static_cast<uint16_t>(frame.size()), arrival.side,
                                    pool_->hash_secret(), meta);
    if (reason != DropReason::kNone) return reason;
    const std::span<const Be32> external = chain_->external_addresses();
    if (is_steered_by_lease(!external.empty(), meta.key)) {
      const auto address = std::find(external.begin(), external.end(), meta.key.dst);
      if (address == external.end()) {
        if (!chain_->passes_untranslated()) return DropReason::kNotForUs;
        meta.bucket = bucket_of(meta.key.reversed());
        return DropReason::kNone;
      }
      if (const Forward* forward = find_forward(chain_->forwards(), meta.key)) {
        meta.bucket = bucket_of(inside_key_of(*forward, meta.key));
        return DropReason::kNone;
      }
      const uint32_t* leases = pool_->port_leases(chain_index_);
      const uint32_t holder = leases[static_cast<size_t>(address - external.begin()) * kPortBlocks +
                                     meta.key.dst_port.host() / kPortBlockPorts];
      meta.bucket = holder - 1;
      return holder == 0 ? DropReason::kNoPortLease : DropReason::kNone;
    }
    const FlowKey inside = arrival.side == Side::kInside ? meta.key : meta.key.reversed();
    meta.bucket = bucket_of(inside);
    return DropReason::kNone;
  }
  uint32_t bucket_of(const FlowKey& inside) const {
    return static_cast<uint32_t>(
        steering_hash(chain_->steering_scope(), inside, pool_->hash_secret()) % kBuckets);
  }

  size_t run(std::span<Inside> queue) {
    std::vector<Packet> packets;
    for (Inside& packet : queue) {
      packet.frame.reserve(kEditableBytes);  // an answer may be longer than its question
      packets.push_back({packet.frame.data(), &packet.meta, packets.size()});
    }
    undo_->forget();
    return runtime_->run(packets, now_s, *undo_);
  }

  size_t run_and_commit(std::span<Inside> queue) {
    if (queue.size() > kBurstPackets) queue = queue.first(kBurstPackets);
    if (mode_ == Mode::kCrash && ++bursts_ % 2 == 0) die_before_commit(queue);
    const size_t ran = run(queue);
    if (!table_->dirty()) return ran;
    if (mode_ == Mode::kCrash && bursts_ % 2 == 1) {
      hear_events();
      table_->commit({});
      bury_workers();
      RedoLog(*pool_, log_).apply_newest();
      start_worker();
    } else {
      commit();
    }
    return ran;
  }

  // The packets must come out of the undo log exactly as they went in.
  void die_before_commit(std::span<Inside> queue) {
    std::vector<Bytes> before;
    for (const Inside& packet : queue) before.push_back(packet.frame);
    const RuntimeCounters counted = counters();
    run(queue);
    for (uint32_t i = 0; i < undo_->count; ++i) {
      const UndoEntry& entry = undo_->entries[i];
      std::memcpy(queue[entry.packet].frame.data(), entry.bytes, entry.length);
    }
    for (size_t i = 0; i < queue.size(); ++i) {
      ASSERT_EQ(queue[i].frame, before[i]) << "not restored: packet " << i;
    }
    restore_soft(*undo_, *pool_);
    bury_workers();  // whatever was staged is gone
    buried_ = counted;
    start_worker();
  }

  void count(const PacketMeta& meta) {
    const std::vector<std::string> names = chain_->counter_names();
    for (const uint16_t number : meta.counts) {
      if (number != 0) ++counted_[names.at(number - 1U)];
    }
  }

  void hear_events() {
    const std::vector<std::string> names = chain_->counter_names();
    for (const FunctionEvent& event : runtime_->events().all()) {
      told_.emplace_back(names.at(event.counter), event);
    }
    runtime_->forget_events();
  }

  static Departure departure_of(const Inside& packet, const Arrival& arrival) {
    if (packet.meta.verdict == Verdict::kForward) return {DropReason::kNone, packet.frame};
    EXPECT_NE(packet.meta.reason, DropReason::kNone);
    if (packet.meta.verdict == Verdict::kReply) {
      return {packet.meta.reason,
              Bytes(packet.frame.data(), packet.frame.data() + packet.meta.reply_length)};
    }
    EXPECT_EQ(packet.frame, arrival.frame) << "a dropped packet was edited";
    return {packet.meta.reason, {}};
  }

  Mode mode_;
  MakeFunction make_function_;
  std::shared_ptr<Pool> pool_;
  uint32_t chain_index_ = 0;
  std::unique_ptr<Chain> chain_;
  uint32_t log_ = 0;
  std::unique_ptr<FlowTable> table_;
  std::unique_ptr<ChainRuntime> runtime_;
  Resting other_;
  RuntimeCounters buried_;
  std::unique_ptr<UndoLog> undo_;
  uint64_t bursts_ = 0;
  std::map<std::string, uint64_t> counted_;
  std::vector<std::pair<std::string, FunctionEvent>> told_;
};

}  // namespace flowkeep
