// The burst protocol and its recovery, with a stand-in for the switch: packets made by hand in an
// arena of its own, no EAL. Workers are real processes and are really killed.
#include "dataplane/worker.h"

#include <gtest/gtest.h>
#include <rte_mbuf.h>
#include <rte_ring_peek_zc.h>
#include <sched.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <deque>
#include <optional>
#include <random>
#include <set>

#include "nfs/chain_harness.h"

namespace flowkeep {
namespace {

constexpr uint32_t kPackets = 4096;
constexpr uint32_t kPacketBytes = 1024;
constexpr uint32_t kBuckets = 16;
constexpr size_t kSlot = 0;
constexpr size_t kNumberedBytes =
    24;  // payload; the flow and the packet's number are its first 8 bytes
constexpr char kRemote[] = "198.51.100.7";
constexpr char kExternal[] = "203.0.113.10";

const ChainSpec kFirewallAndNat = {
    "test",
    1,
    {{"firewall", R"({"rules":[{"name":"udp","action":"accept","protocol":"udp"}]})"},
     {"nat44", R"({"external_addresses":["203.0.113.10"]})"}}};

struct ArenaPacket {
  rte_mbuf mbuf;
  PacketMeta meta;
  uint8_t headroom[RTE_PKTMBUF_HEADROOM];
  uint8_t frame[512];
};
static_assert(sizeof(ArenaPacket) <= kPacketBytes &&
              offsetof(ArenaPacket, meta) == sizeof(rte_mbuf));

// Writes flow and number into a UDP or TCP packet's payload and makes its checksum right.
Bytes numbered(Bytes frame, uint32_t flow, uint32_t number) {
  uint8_t* const ip = &frame[sizeof(EthernetHeader)];
  uint8_t* const l4 = ip + sizeof(Ipv4Header);
  const size_t l4_bytes = frame.size() - sizeof(EthernetHeader) - sizeof(Ipv4Header);
  uint8_t* const payload = &frame[frame.size() - kNumberedBytes];
  std::memcpy(payload, &flow, sizeof(flow));
  std::memcpy(payload + 4, &number, sizeof(number));
  uint8_t* const field = l4 + (ip[9] == kProtocolUdp ? 6 : 16);
  field[0] = field[1] = 0;
  uint16_t checksum =
      naive_checksum(naive_sum(l4, l4_bytes) + naive_pseudo_header_sum(ip, ip[9], l4_bytes));
  if (checksum == 0 && ip[9] == kProtocolUdp)
    checksum = 0xffff;  // RFC 768: 0 says that there is none
  field[0] = static_cast<uint8_t>(checksum >> 8);
  field[1] = static_cast<uint8_t>(checksum);
  return frame;
}

// A flow as both sides see it. Each has an inside endpoint of its own.
struct TestFlow {
  std::string address;
  uint16_t port = 0;
  uint16_t external_port = 0;  // 0: not seen yet
  uint32_t sent = 0;

  static TestFlow number(uint32_t n) {
    return {"10.0." + std::to_string(n / 250) + "." + std::to_string(n % 250 + 1),
            static_cast<uint16_t>(2000 + n % 7)};
  }
};

struct Expected {
  ArenaPacket* packet;
  uint32_t flow;
  uint32_t number;
  Side side;
  Verdict verdict;
  Bytes before;
};

class WorkerTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    if (arena_) return;
    Result<Arena> arena = Arena::create(kPackets, kPacketBytes, Hugepages::kNever);
    ASSERT_TRUE(arena.ok()) << arena.error().text();
    arena_ = *arena;
  }
  void SetUp() override {
    pool_ = open_pool(directory_, 64 << 20);
    chain_ = must_build(kFirewallAndNat);
    ArenaHeader& header = arena_->header();
    const auto attached = pool_->attach_chain("test", kBuckets);
    ASSERT_TRUE(attached.ok());
    header.chains[0].pool_index = static_cast<uint16_t>(attached->index);
    header.chains[0].buckets = kBuckets;
    for (Steering& steering : header.chains[0].steering) steering.slot.store(kSlot);
    arena_->reset_slot(kSlot);
    slot().done_sequence.store(0);
    slot().process.store(0);
    WorkerProcess& process = header.processes[0];
    process.slot.store(kSlot);
    process.revision.store(1);
    process.leave.store(0);
    auto* packets = reinterpret_cast<uint8_t*>(arena_->base()) + header.packet_offset;
    for (uint32_t i = 0; i < kPackets; ++i)
      free_.push_back(reinterpret_cast<ArenaPacket*>(packets + i * kPacketBytes));
  }

  WorkerSlot& slot() { return arena_->header().slots[kSlot]; }
  rte_ring* inbox() { return arena_->inbox(kSlot); }
  rte_ring* outbox() { return arena_->outbox(kSlot); }

  // ---- The switch's part.
  void feed(const Bytes& frame, Side side, uint32_t flow, uint32_t number, Verdict verdict) {
    ArenaPacket* packet = free_.front();
    free_.pop_front();
    packet->mbuf = rte_mbuf{};
    packet->mbuf.buf_addr = packet->headroom;
    packet->mbuf.data_off = RTE_PKTMBUF_HEADROOM;
    packet->mbuf.priv_size = sizeof(PacketMeta);
    packet->mbuf.data_len = static_cast<uint16_t>(frame.size());
    packet->mbuf.pkt_len = static_cast<uint32_t>(frame.size());
    std::memcpy(packet->frame, frame.data(), frame.size());
    packet->meta = PacketMeta{};
    ASSERT_EQ(parse(packet->frame, static_cast<uint16_t>(frame.size()), side, pool_->hash_secret(),
                    packet->meta),
              DropReason::kNone);
    packet->meta.bucket = bucket_of(packet->meta);
    in_flight_.push_back({packet, flow, number, side, verdict, frame});
    ASSERT_EQ(rte_ring_sp_enqueue(inbox(), packet), 0);
  }
  uint32_t bucket_of(const PacketMeta& meta) {
    if (meta.side == Side::kInside) {
      return static_cast<uint32_t>(
          steering_hash(chain_->steering_scope(), meta.key, pool_->hash_secret()) % kBuckets);
    }
    const uint32_t holder = pool_->port_leases(0)[meta.key.dst_port.host() / kPortBlockPorts];
    EXPECT_NE(holder, 0U) << "a port in use is not leased";
    return holder - 1;
  }

  static Bytes outgoing(std::string_view address, uint16_t port, uint32_t flow, uint32_t number) {
    return numbered(PacketBuilder::udp(address, port, kRemote, 443).payload(kNumberedBytes).build(),
                    flow, number);
  }
  static Bytes incoming(std::string_view address, uint16_t port, uint32_t flow, uint32_t number) {
    return numbered(PacketBuilder::udp(kRemote, 443, address, port).payload(kNumberedBytes).build(),
                    flow, number);
  }
  void feed_outgoing(uint32_t n) {
    while (flows_.size() <= n)
      flows_.push_back(TestFlow::number(static_cast<uint32_t>(flows_.size())));
    TestFlow& flow = flows_[n];
    feed(outgoing(flow.address, flow.port, n, flow.sent), Side::kInside, n, flow.sent,
         Verdict::kForward);
    ++flow.sent;
  }
  void feed_answer(uint32_t n) {
    TestFlow& flow = flows_[n];
    feed(incoming(kExternal, flow.external_port, n, flow.sent), Side::kOutside, n, flow.sent,
         Verdict::kForward);
    ++flow.sent;
  }
  void feed_forbidden() {
    const Bytes frame =
        PacketBuilder::tcp("10.9.9.9", 4000, kRemote, 443, kTcpSyn).payload(kNumberedBytes).build();
    feed(frame, Side::kInside, 0, 0, Verdict::kDrop);
  }

  // Takes what the worker has published. There is one slot, so packets must come in the order in
  // which they were fed, whatever their flow: none missing, none twice.
  size_t drain() {
    size_t taken = 0;
    for (void* object = nullptr; rte_ring_sc_dequeue(outbox(), &object) == 0; ++taken) {
      if (in_flight_.empty() || in_flight_.front().packet != object) {
        ADD_FAILURE() << "packet lost, repeated or out of order";
        return taken;
      }
      check(in_flight_.front());
      free_.push_back(in_flight_.front().packet);
      in_flight_.pop_front();
    }
    return taken;
  }
  void check(const Expected& expected) {
    const ArenaPacket& packet = *expected.packet;
    const Bytes frame(packet.frame, packet.frame + packet.mbuf.data_len);
    EXPECT_EQ(packet.meta.verdict, expected.verdict) << drop_reason_name(packet.meta.reason);
    EXPECT_EQ(checksum_faults(frame), "");
    if (expected.verdict == Verdict::kDrop) {
      EXPECT_EQ(frame, expected.before);
      return;
    }
    TestFlow& flow = flows_[expected.flow];
    if (expected.side == Side::kOutside) {
      EXPECT_EQ(frame, incoming(flow.address, flow.port, expected.flow, expected.number));
      return;
    }
    const size_t l4 = sizeof(EthernetHeader) + sizeof(Ipv4Header);
    const auto port = static_cast<uint16_t>(frame[l4] << 8 | frame[l4 + 1]);
    if (flow.external_port == 0) {
      EXPECT_TRUE(external_ports_.insert(port).second) << "two flows share external port " << port;
      flow.external_port = port;
    }
    EXPECT_EQ(port, flow.external_port)
        << "flow " << expected.flow << " has changed its translation";
    EXPECT_EQ(frame, outgoing(kExternal, flow.external_port, expected.flow, expected.number));
  }

  // ---- Workers.
  pid_t start_worker() {
    arena_->header().processes[0].state.store(ProcessState::kStarting);
    const pid_t pid = fork();
    if (pid != 0) return pid;
    Worker worker(*arena_, *pool_, *chain_, 0, 0);
    worker.run();
    _exit(0);
  }
  void wait_until_it_serves() {
    while (arena_->header().processes[0].state.load() != ProcessState::kServing) sched_yield();
  }
  // From here on it runs one instruction for each step() that it is given.
  void stop_serving_worker(pid_t pid) {
    wait_until_it_serves();
    int status = 0;
    ASSERT_EQ(ptrace(PTRACE_ATTACH, pid, nullptr, nullptr), 0) << "no tracing of children here";
    ASSERT_EQ(waitpid(pid, &status, 0), pid);
    ASSERT_TRUE(WIFSTOPPED(status));
  }
  static void step(pid_t pid) {
    int status = 0;
    ASSERT_EQ(ptrace(PTRACE_SINGLESTEP, pid, nullptr, nullptr), 0);
    ASSERT_EQ(waitpid(pid, &status, 0), pid);
    ASSERT_TRUE(WIFSTOPPED(status)) << status;
  }
  static void kill_worker(pid_t pid) {
    kill(pid, SIGKILL);
    int status = 0;
    while (waitpid(pid, &status, 0) == pid && !WIFEXITED(status) && !WIFSIGNALED(status)) {
    }
    ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
        << "the worker ended by itself: " << status;
  }
  // A worker that nobody kills does the rest and leaves when it is asked to.
  void finish() {
    const pid_t pid = start_worker();
    while (rte_ring_count(inbox()) != 0) {
      ring(slot().doorbell);
      drain();
      sched_yield();
    }
    drain();
    arena_->header().processes[0].leave.store(1);
    ring(slot().doorbell);
    int status = 0;
    ASSERT_EQ(waitpid(pid, &status, 0), pid);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
    EXPECT_TRUE(in_flight_.empty()) << in_flight_.size() << " packets lost";
    EXPECT_EQ(pool_->count_flows(0), flows_.size());
    EXPECT_EQ(page_leak(*pool_), "");
    EXPECT_EQ(free_.size(), kPackets);
  }
  void feed_mixture(std::mt19937_64& random, uint32_t packets) {
    for (uint32_t i = 0; i < packets; ++i) {
      const uint64_t dice = random() % 16;
      const auto some = static_cast<uint32_t>(flows_.empty() ? 0 : random() % flows_.size());
      if (dice == 0) {
        feed_forbidden();
      } else if (dice <= 2 && flows_.size() < 20'000) {
        feed_outgoing(static_cast<uint32_t>(flows_.size()));
      } else if (dice <= 8 && !flows_.empty() && flows_[some].external_port != 0) {
        feed_answer(some);
      } else {
        feed_outgoing(some);
      }
    }
  }

  inline static std::optional<Arena> arena_;
  PoolDirectory directory_;
  std::unique_ptr<Pool> pool_;
  std::unique_ptr<Chain> chain_;
  std::deque<ArenaPacket*> free_;
  std::deque<Expected> in_flight_;
  std::deque<TestFlow> flows_;
  std::set<uint16_t> external_ports_;
};

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
