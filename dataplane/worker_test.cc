// The burst protocol and its recovery. Deaths at named steps: worker_death_test.cc.
#include <tuple>

#include "dataplane/worker_fixture.h"

namespace flowkeep {
namespace {

TEST_F(WorkerTest, ForwardsDropsAndLeavesWhenAsked) {
  for (uint32_t n = 0; n < 100; ++n) feed_outgoing(n % 10);
  feed_forbidden();
  finish();
  EXPECT_EQ(slot().packets.load(), 101U);
  EXPECT_EQ(slot().opened_flows.load(), 10U);
}

TEST_F(WorkerTest, AskedToLeaveBeforeItHasASlotItLeaves) {
  arena_->header().processes[0].slot.store(-1);
  arena_->header().processes[0].leave.store(1);
  int status = 0;
  ASSERT_GT(waitpid(start_worker(), &status, 0), 0);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
}

TEST_F(WorkerTest, TwoHundredKillsLoseRepeatAndReorderNothing) {
  const uint64_t seed = std::random_device{}();
  std::printf("seed %lu\n", seed);
  std::mt19937_64 random(seed);
  uint32_t completed = 0, undone = 0;
  for (uint32_t kills = 0; kills < 200 && !HasFailure(); ++kills) {
    if (in_flight_.size() < 1024) feed_mixture(random, static_cast<uint32_t>(random() % 800));
    const pid_t pid = start_worker();
    wait_until_it_serves();
    for (uint64_t spins = random() % 16'384; spins > 0; --spins) rte_pause();
    kill_worker(pid);
    const SlotRecovery report = recover_slot(*arena_, *pool_, kSlot);
    completed += report.burst_completed;
    undone += report.burst_undone;
    drain();
  }
  std::printf("%zu flows, %u bursts completed, %u undone\n", flows_.size(), completed, undone);
  finish();
}

// A worker runs a burst of a few packets one instruction at a time and is killed after a random
// number of them; every other time they are counted from the commit. Some bursts run to their end
// first, to know how many there are.
TEST_F(WorkerTest, KillsBetweenAnyTwoInstructionsLoseNothing) {
  const uint64_t seed = std::random_device{}();
  std::printf("seed %lu\n", seed);
  std::mt19937_64 random(seed);
  std::vector<uint64_t> lengths[2];  // in instructions: of whole bursts, of what follows the commit
  uint32_t completed = 0, undone = 0, redone = 0;
  for (uint32_t kills = 0; kills < 80 && !HasFailure(); ++kills) {
    const pid_t pid = start_worker();
    stop_serving_worker(pid);
    feed_mixture(random, 1 + static_cast<uint32_t>(random() % 3));
    ring(slot().doorbell);
    const bool from_commit = kills % 2 != 0;
    const uint64_t committed = slot().committed.load();
    while (inbox()->cons.head == inbox()->cons.tail && !HasFatalFailure()) step(pid);
    while (from_commit && slot().committed.load() == committed && !HasFatalFailure()) step(pid);
    std::vector<uint64_t>& known = lengths[from_commit];
    const uint64_t limit = kills < 8 ? UINT64_MAX : random() % known[random() % known.size()];
    uint64_t steps = 0;
    for (; steps < limit && rte_ring_count(inbox()) != 0 && !HasFatalFailure(); ++steps) step(pid);
    if (rte_ring_count(inbox()) == 0) known.push_back(steps);
    kill_worker(pid);
    const SlotRecovery report = recover_slot(*arena_, *pool_, kSlot);
    completed += report.burst_completed;
    undone += report.burst_undone;
    redone += report.redo_applied;
    drain();
  }
  std::printf("%u bursts completed, %u undone, %u write sets applied\n", completed, undone, redone);
  EXPECT_GT(completed, 0U);
  finish();
}

// ---- The same burst by hand, ended after each of its steps.
enum class Step {
  kStaged,
  kRedoWritten,
  kCommitted,
  kPublished,
  kApplied,
  kAppliedNoted,
  kUndoForgotten,
  kReleased
};

void PrintTo(Step step, std::ostream* out) {
  *out << "step " << static_cast<int>(step);
}

class BrokenBurst : public WorkerTest,
                    public testing::WithParamInterface<std::tuple<Step, uint32_t>> {
 protected:
  static void set_position(rte_ring_headtail& end, uint32_t position) {
    end.head = position;
    end.tail = position;
  }
  // Both rings stand at `position`, as after as many packets.
  void set_positions(uint32_t position) {
    for (rte_ring* ring : {inbox(), outbox()}) {
      for (rte_ring_headtail* end : {&ring->prod, &ring->cons}) set_position(*end, position);
    }
    slot().committed.store(pack({position, position}));
  }
  // What Worker::burst() does, until `last` inclusive. Returns the number of packets.
  unsigned burst_until(Step last) {
    FlowTable table(*pool_, 0, kSlot);
    ChainRuntime runtime(*chain_, table, 1);
    rte_ring_zc_data in{}, out{};
    const unsigned count = rte_ring_dequeue_zc_burst_start(inbox(), kBurst, &in, nullptr);
    std::vector<Packet> packets;
    for (unsigned i = 0; i < count; ++i) {
      auto* packet = static_cast<ArenaPacket*>(at(in, i));
      packets.push_back({packet->frame, &packet->meta, reinterpret_cast<uint64_t>(packet)});
    }
    EXPECT_EQ(runtime.run(packets, arena_->now_s(), slot().undo), count);
    rte_ring_enqueue_zc_burst_start(outbox(), count, &out, nullptr);
    for (unsigned i = 0; i < count; ++i) at(out, i) = reinterpret_cast<void*>(packets[i].handle);
    if (last == Step::kStaged) return count;
    const BurstPositions after{inbox()->cons.tail + count, outbox()->prod.tail + count};
    const uint64_t sequence = table.dirty() ? table.commit(after) : 0;
    if (last == Step::kRedoWritten) return count;
    slot().committed.store(pack(after));
    if (last == Step::kCommitted) return count;
    rte_ring_enqueue_zc_finish(outbox(), count);
    if (last == Step::kPublished) return count;
    if (sequence != 0) table.apply();
    if (last == Step::kApplied) return count;
    if (sequence != 0) slot().done_sequence.store(sequence);
    if (last == Step::kAppliedNoted) return count;
    slot().undo.count = 0;
    if (last == Step::kUndoForgotten) return count;
    rte_ring_dequeue_zc_finish(inbox(), count);
    return count;
  }
  static void*& at(const rte_ring_zc_data& reserved, unsigned i) {
    return i < reserved.n1 ? static_cast<void**>(reserved.ptr1)[i]
                           : static_cast<void**>(reserved.ptr2)[i - reserved.n1];
  }
  Bytes frame_of(const Expected& expected) {
    return Bytes(expected.packet->frame, expected.packet->frame + expected.packet->mbuf.data_len);
  }
  void expect_nothing_to_do() {
    const BurstPositions released{inbox()->cons.tail, outbox()->prod.tail};
    const uint64_t flows = pool_->count_flows(0);
    const SlotRecovery report = recover_slot(*arena_, *pool_, kSlot);
    EXPECT_FALSE(report.redo_applied || report.burst_completed || report.burst_undone);
    EXPECT_EQ((BurstPositions{inbox()->cons.tail, outbox()->prod.tail}), released);
    EXPECT_EQ(pool_->count_flows(0), flows);
  }
  // The burst is done or not begun, as the step says, and doing it again changes nothing.
  void recover_and_check(Step step, unsigned count, bool hard_state_changed,
                         uint64_t flows_before) {
    const bool committed = step >= (hard_state_changed ? Step::kRedoWritten : Step::kCommitted);
    const bool released = step == Step::kReleased;
    const SlotRecovery report = recover_slot(*arena_, *pool_, kSlot);
    EXPECT_EQ(report.burst_undone, !committed);
    EXPECT_EQ(report.burst_completed, committed && !released);
    EXPECT_EQ(report.redo_applied, hard_state_changed && committed && step < Step::kAppliedNoted);
    EXPECT_EQ(rte_ring_count(inbox()), committed ? 0 : count);
    EXPECT_EQ(rte_ring_count(outbox()), committed ? count : 0);
    EXPECT_EQ(slot().undo.count, 0U);
    EXPECT_EQ(pool_->count_flows(0), committed ? flows_.size() : flows_before);
    if (!committed) {
      for (const Expected& expected : in_flight_) EXPECT_EQ(frame_of(expected), expected.before);
    }
    expect_nothing_to_do();
  }
};

TEST_P(BrokenBurst, OpensFlows) {
  const auto [step, position] = GetParam();
  set_positions(position);
  for (uint32_t n = 0; n < 30; ++n) feed_outgoing(n % 20);
  feed_forbidden();
  const unsigned count = burst_until(step);
  ASSERT_EQ(count, 31U);
  recover_and_check(step, count, true, 0);
  finish();
}

TEST_P(BrokenBurst, ChangesNoHardState) {
  const auto [step, position] = GetParam();
  for (uint32_t n = 0; n < 20; ++n) feed_outgoing(n);
  burst_until(Step::kReleased);
  drain();
  set_positions(position);
  for (uint32_t n = 0; n < 40; ++n) feed_outgoing(n % 20);
  const unsigned count = burst_until(step);
  ASSERT_EQ(count, 40U);
  recover_and_check(step, count, false, 20);
  finish();
}

TEST_P(BrokenBurst, AnswersEstablishTheFlows) {
  const auto [step, position] = GetParam();
  for (uint32_t n = 0; n < 20; ++n) feed_outgoing(n);
  burst_until(Step::kReleased);
  drain();
  set_positions(position);
  for (uint32_t n = 0; n < 20; ++n) feed_answer(n);
  const unsigned count = burst_until(step);
  recover_and_check(step, count, true, 20);
  finish();
  pool_->for_each_flow(0, [](const FlowRecord& record) {
    EXPECT_EQ(record.phase, FlowPhase::kEstablished);
    return true;
  });
}

INSTANTIATE_TEST_SUITE_P(
    EveryStep, BrokenBurst,
    testing::Combine(
        testing::Values(Step::kStaged, Step::kRedoWritten, Step::kCommitted, Step::kPublished,
                        Step::kApplied, Step::kAppliedNoted, Step::kUndoForgotten, Step::kReleased),
        testing::Values(0U, kRingPackets - 10, 0xfffffff0U)));  // rings and counters wrap

class Recovery : public BrokenBurst {};
INSTANTIATE_TEST_SUITE_P(Once, Recovery, testing::Values(std::tuple{Step::kReleased, 0U}));

// Expired flows are closed between bursts, by a commit that moves no packet.
TEST_P(Recovery, ASweepThatCommittedIsAppliedAndMovesNoPacket) {
  for (uint32_t n = 0; n < 4; ++n) feed_outgoing(n);
  burst_until(Step::kReleased);
  drain();
  for (uint32_t n = 0; n < 4; ++n) feed_outgoing(n);
  {
    FlowTable table(*pool_, 0, kSlot);
    slot().sweeping.store(1);
    for (uint32_t bucket = 0; bucket < kBuckets; ++bucket) {
      table.sweep(bucket, 100, [&](RecordId id, const FlowRecord&) { table.close(id); });
    }
    table.commit(unpack(slot().committed.load()));
  }
  const SlotRecovery report = recover_slot(*arena_, *pool_, kSlot);
  EXPECT_TRUE(report.redo_applied);
  EXPECT_FALSE(report.burst_completed || report.burst_undone);
  EXPECT_EQ(slot().sweeping.load(), 0U);
  EXPECT_EQ(pool_->count_flows(0), 0U);
  EXPECT_EQ(rte_ring_count(inbox()), 4U);
  EXPECT_EQ(rte_ring_count(outbox()), 0U);
  expect_nothing_to_do();
}

// A worker that dies before its first packet leaves nothing to repair, nor does one in a fresh
// slot.
TEST_P(Recovery, AnIdleSlotIsLeftAsItIs) {
  expect_nothing_to_do();
  feed_outgoing(0);
  expect_nothing_to_do();
  EXPECT_EQ(rte_ring_count(inbox()), 1U);
  finish();
}

// The arena dies with the node, the pool does not: positions from a time before mean nothing.
TEST_P(Recovery, ARestartedNodeKeepsCommittedFlowsAndForgetsPositions) {
  for (uint32_t n = 0; n < 10; ++n) feed_outgoing(n);
  burst_until(Step::kRedoWritten);
  arena_->reset_slot(kSlot);
  slot().done_sequence.store(0);
  pool_.reset();
  pool_ = open_pool(directory_, 64 << 20);
  EXPECT_EQ(pool_->recover_all().redo_records_applied, 1U);
  ASSERT_TRUE(pool_->attach_chain("test", kBuckets).ok());
  EXPECT_EQ(pool_->count_flows(0), 10U);
  expect_nothing_to_do();
  EXPECT_TRUE(rte_ring_empty(inbox()) && rte_ring_empty(outbox()));
}

TEST_P(Recovery, ABurstIsNeverLargerThanTheRoomInTheOutbox) {
  set_positions(0);
  for (uint32_t n = 0; n < 40; ++n) feed_outgoing(n);
  // The switch has not taken what fills the outbox but for five places.
  const uint32_t filled = outbox()->capacity - 5;
  set_position(outbox()->prod, filled);
  slot().committed.store(pack({0, filled}));
  const pid_t pid = start_worker();
  while (rte_ring_free_count(outbox()) != 0) sched_yield();
  kill_worker(pid);
  recover_slot(*arena_, *pool_, kSlot);
  EXPECT_EQ(rte_ring_count(inbox()), 35U);
  set_position(outbox()->cons, filled);
  EXPECT_EQ(drain(), 5U);
  finish();
}

}  // namespace
}  // namespace flowkeep
