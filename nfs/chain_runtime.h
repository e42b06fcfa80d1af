// ChainRuntime: runs bursts of packets through a chain in one worker.
//
// For each burst: look every flow up (its cache misses overlap), open new flows, follow each flow's
// phase, then run the functions over the burst, from the inside in the chain's order and from the
// outside in reverse. Every change of hard state is staged in the FlowTable; the worker commits it,
// publishes the packets and applies it. Nothing here allocates, locks or calls the system.
//
// Thread rule: belongs to one worker.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "nfs/chain.h"
#include "nfs/flow_phase.h"
#include "nfs/packet.h"
#include "state/flow_table.h"

namespace flowkeep {

// Soft: since this runtime was made.
struct RuntimeCounters {
  uint64_t opened = 0;
  uint64_t reopened = 0;      // TCP: the same ports anew, after the end of a connection
  uint64_t expired = 0;       // found idle too long, by a packet or by the sweep
  uint64_t revised = 0;       // accepted by this revision after another one
  uint64_t revised_away = 0;  // refused by this revision after another one
};

class ChainRuntime {
 public:
  // Chain and table must outlive the runtime. `revision` is what flows are stamped with;
  // `resumed_s` is the Unix time at which the node started: no flow counts as idle before.
  ChainRuntime(const Chain& chain, FlowTable& table, uint32_t revision, uint32_t resumed_s = 0);

  // Gives each packet its verdict, and reason if not forwarded, and edits those that go on;
  // whatever was edited was saved in `undo` before, whose count must be 0 at a burst's begin. At
  // most kBurstPackets packets. Returns how many it processed: fewer than given, and at least one
  // if nothing was staged before, when the write set has no room; then commit and call again.
  size_t run(std::span<Packet> packets, uint32_t now_s, UndoLog& undo);

  // Looks at up to `records` records of each bucket and closes flows that have expired or that this
  // revision does not allow, and keyed state of functions that it does not have, as far as the
  // write set has room. Between run() and commit. Returns how many flows it closed.
  uint32_t sweep(std::span<const uint32_t> buckets, uint32_t records, uint32_t now_s);

  const RuntimeCounters& counters() const { return counters_; }
  // Events of what was run or swept since the last forget_events(), which the owner calls when they
  // are out.
  const EventStage& events() const { return events_; }
  void forget_events() { events_.clear(); }

 private:
  // How flows of another revision come to this one. Worked out at the first of them.
  struct Takeover {
    uint32_t revision = 0;  // 0: none yet
    bool possible = false;  // the pool knows where that revision kept the state
    bool keeps_extent = false;
    StateLayout layout;
  };
  enum class Progress : uint8_t { kDone, kNoRoom };  // kNoRoom: the packet was not processed

  void prefetch(std::span<const Packet> packets);
  struct Found {
    RecordId flow = 0;
    RecordId host = 0;  // of the endpoint, if the chain maps them: where there is no flow
  };
  Found look_up(const PacketMeta& meta, size_t index) const;
  Progress find_flow(const Packet& packet, size_t index, uint32_t now_s, UndoLog& undo);
  bool may_go_on(const FlowRecord& record, const PacketMeta& meta, uint32_t now_s);
  bool take_over(const FlowRecord& record);
  bool is_allowed(const FlowRecord& record);
  const Takeover& takeover_from(uint32_t revision);
  void restamp(RecordId id);
  bool has_room(uint32_t changes, size_t index) const;
  Progress follow(RecordId id, size_t index, const Packet& packet, uint32_t now_s, UndoLog& undo);
  Inspection inspect(const Packet& packet, RecordId id, uint32_t now_s, UndoLog& undo);
  void clear_soft(RecordId id, UndoLog& undo);
  Progress open_flow(const Packet& packet, size_t index, uint32_t now_s, UndoLog& undo,
                     RecordId host);
  FlowTable::Opened open_record(const OpeningFlow& flow);
  std::optional<EndpointMapping> mapping_of(RecordId host) const;
  Decision open_functions(OpeningFlow& flow);
  Decision judge_stray(OpeningFlow& packet);
  void take_back(OpeningFlow& flow, size_t opened);
  AnyStep& step_in_order(Side from, size_t i) const;
  bool is_last_of_mapping(const FlowRecord& record) const;
  bool has_its_lease(const FlowRecord& record);
  bool is_mapping_allowed(const FlowRecord& host);
  void close_flow(RecordId id, uint32_t now_s);
  bool is_orphan(const FlowRecord& record) const;
  bool used_before(RecordId id, size_t index) const;
  void run_functions(std::span<Packet> packets, uint32_t now_s, UndoLog& undo);

  const Chain& chain_;
  FlowTable& table_;
  uint32_t revision_;
  uint32_t resumed_s_;
  uint16_t soft_epoch_;  // of the node's life, never 0
  Timeouts timeouts_;
  std::vector<std::unique_ptr<AnyStep>> steps_;  // in the chain's order
  bool has_process_ = false;                     // of any step
  AnyStep* inspector_ = nullptr;                 // the one that inspects; null: none
  bool hears_ends_ = false;                      // any step
  std::vector<Be16> owners_;                     // of keyed state
  // Of the burst's packets: where the index suggests no flow of their own, their endpoint's hash.
  std::array<std::optional<uint64_t>, kBurstPackets> endpoint_hashes_{};
  std::array<Takeover, 4> takeovers_{};  // the latest, in turn
  size_t next_takeover_ = 0;
  // Of the flow that take_over() said yes to last.
  alignas(64) std::array<uint8_t, kHardStateBytes> taken_hard_{};
  bool taken_extent_ = false;
  std::array<RecordId, kBurstPackets> flows_{};  // of the burst's packets; 0: none
  RuntimeCounters counters_;
  EventStage events_;
};

}  // namespace flowkeep
