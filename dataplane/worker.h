// Worker: a process that runs one revision of a chain, to completion, for the buckets of the worker
// slot that it occupies. Forked from the revision's zygote, under seccomp; waits as a warm standby
// until the supervisor assigns it a slot, and may be killed at any instruction from then on.
//
// The burst cycle. A packet belongs to exactly one of inbox and outbox at each instant at which the
// worker can die, because both positions become true together at the commit point:
//
//   1. peek up to 64 packets of the inbox, without releasing them
//   2. run the chain on them; a packet's first bytes are saved to the undo log before they change
//   3. stage the packets in the outbox, unpublished
//   4. commit: a redo record with the write set and the positions (if hard state changed), then
//      `committed` = the positions after this burst; whichever comes first is the commit point
//   5. publish the outbox and the events, apply the write set to the home records, forget the undo
//   log, release the inbox
//
// A worker that has just taken over begins with a burst of one packet and quadruples from there:
// each flow that it meets first is a page or two that its process has never touched, and the first
// packet shall not wait for those of 63 others.
//
// Recovery (recover_slot) completes 5 if the burst was committed and takes 2 back if it was not.
//
// After a death in an uncommitted burst the slot's next worker is careful: it takes one packet at a
// time until it has passed that burst, so that a packet which kills is found alone
// (dataplane/supervisor/poison.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "dataplane/arena.h"
#include "nfs/chain.h"
#include "nfs/chain_runtime.h"
#include "state/flow_table.h"

struct rte_mbuf;

namespace flowkeep {

class Worker {
 public:
  // `first_burst`: packets of its first burst at most.
  Worker(const Arena& arena, Pool& pool, const Chain& chain, size_t process, uint32_t chain_index,
         uint32_t first_burst = 1);

  // Maps what a take-over is sure to need, so that it meets no page fault there: the rings, control
  // blocks and redo logs of every slot. Before the sandbox.
  void touch_memory() const;
  // Serves until asked to leave; then returns. Sleeps as a standby until a slot is assigned.
  void run();

 private:
  void adopt(size_t slot);
  size_t burst();
  void stage_events();
  void commit(BurstPositions after);
  void apply_and_release(uint32_t packets);
  void sweep(uint32_t buckets);
  void idle();
  bool leave_asked() const;
  void look_whether_to_stop();
  void reached(BurstStep step);
  void stay(BurstStep step);
  void end_caution();

  const Arena& arena_;
  const Pool& pool_;
  WorkerProcess& process_;
  const uint32_t birth_;
  ChainBlock& chain_;
  FlowTable table_;
  ChainRuntime runtime_;
  size_t slot_number_ = 0;
  WorkerSlot* slot_ = nullptr;
  rte_ring* inbox_ = nullptr;
  rte_ring* outbox_ = nullptr;
  uint32_t burst_limit_;  // packets; grows from burst to burst
  bool first_burst_ended_ = false;
  uint64_t last_sequence_ = 0;  // of this worker's last redo record
  uint32_t sweep_bucket_ = 0;
  uint64_t damage_told_ = 0;
  uint64_t spin_until_tsc_ = 0;
  BurstStep stop_at_ = BurstStep::kNone;  // of this burst or sweep
};

struct SlotRecovery {
  bool redo_applied = false;     // a committed write set was applied (again)
  bool burst_completed = false;  // committed, not yet published: published now
  bool burst_undone = false;     // not committed: its packets are in the inbox as they came
  // Inbox positions of the burst that was open and not committed; equal: there was none, and both
  // are where the inbox stands.
  uint32_t open_begin = 0;
  uint32_t open_end = 0;
  uint32_t waiting = 0;          // packets in the inbox now
  uint64_t first_burst_tsc = 0;  // the dead worker's first burst in the slot; 0: it ended none
};

// Repairs a slot whose worker runs no more user code. Supervisor only. Idempotent.
SlotRecovery recover_slot(const Arena& arena, Pool& pool, size_t slot);

// Of a slot that nobody occupies: its next workers take one packet at a time up to `position`.
void be_careful_until(WorkerSlot& slot, uint32_t position);
// Of a recovered slot that nobody occupies: the packet that its next worker would take first; null
// if the inbox is empty.
rte_mbuf* first_packet(const Arena& arena, size_t slot);
// Commits a burst of one that drops that packet for `reason`; the packet is the switch's from then
// on. False: there is none, or the outbox has no room.
bool drop_first_packet(const Arena& arena, size_t slot, DropReason reason);

}  // namespace flowkeep
