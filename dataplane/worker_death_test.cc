// Death of a worker at every named step of its burst, of two in a row, of the recovery itself, and
// packets that are taken out: whatever dies, the packets and the state are those of a run in which
// nothing did.
#include <filesystem>
#include <map>
#include <tuple>

#include "dataplane/worker_fixture.h"
#include "state/persistence.h"

namespace flowkeep {

void PrintTo(BurstStep step, std::ostream* out) {
  *out << burst_step_name(step);
}

namespace {

constexpr uint64_t kPoolBytes = 64 << 20;
constexpr uint32_t kKnownFlows = 40;

std::vector<BurstStep> steps_of_a_burst() {
  std::vector<BurstStep> steps;
  for (auto i = static_cast<uint32_t>(BurstStep::kPeeked);
       i <= static_cast<uint32_t>(BurstStep::kReleased); ++i)
    steps.push_back(static_cast<BurstStep>(i));
  return steps;
}

bool is_committed(BurstStep step, bool hard_state_changes) {
  return step >= (hard_state_changes ? BurstStep::kCommitted : BurstStep::kMarked);
}

class WorkerDeath : public WorkerTest {
 protected:
  WorkerProcess& process() { return arena_->header().processes[0]; }

  void SetUp() override {
    WorkerTest::SetUp();
    process().stop_at.store(BurstStep::kNone);
    process().stopped_at.store(BurstStep::kNone);
    // The pool as it is now, for a second run of the same.
    std::filesystem::copy_file(directory_.file(), fresh_.file());
  }
  // The same flows, secret and packets again, from the beginning.
  void start_over() {
    pool_.reset();
    std::filesystem::copy_file(fresh_.file(), directory_.file(),
                               std::filesystem::copy_options::overwrite_existing);
    flows_.clear();
    external_ports_.clear();
    free_.clear();
    chain_.reset();
    WorkerTest::SetUp();
    process().stop_at.store(BurstStep::kNone);
  }

  // Starts a worker, which stops at `step` of its first burst, and kills it there.
  void die_at(BurstStep step) {
    process().stopped_at.store(BurstStep::kNone);
    process().stop_at.store(step);
    const pid_t pid = start_worker();
    while (process().stopped_at.load() != step) {
      ring(slot().doorbell);
      ASSERT_EQ(waitpid(pid, nullptr, WNOHANG), 0)
          << "the worker died before " << burst_step_name(step);
      sched_yield();
    }
    kill_worker(pid);
    process().stop_at.store(BurstStep::kNone);
  }
  SlotRecovery recover() { return recover_slot(*arena_, *pool_, kSlot); }

  // Flows that are established before anything happens.
  void establish(uint32_t flows) {
    for (uint32_t n = 0; n < flows; ++n) feed_outgoing(n);
    serve();
    for (uint32_t n = 0; n < flows; ++n) feed_answer(n);
    serve();
  }
  // A worker that nobody kills empties the inbox.
  void serve() {
    const pid_t pid = start_worker();
    while (rte_ring_count(inbox()) != 0) {
      ring(slot().doorbell);
      ASSERT_EQ(waitpid(pid, nullptr, WNOHANG), 0) << "the worker died";
      sched_yield();
    }
    process().leave.store(1);
    ring(slot().doorbell);
    int status = 0;
    ASSERT_EQ(waitpid(pid, &status, 0), pid);
    process().leave.store(0);
    drain();
  }
  // Two bursts and a bit. With new flows, closed ones and refused packets, or of known flows alone.
  void feed_bursts(bool hard_state_changes) {
    for (uint32_t n = 0; n < 150; ++n) {
      if (hard_state_changes && n % 5 == 0) {
        feed_outgoing(kKnownFlows + n / 5);
      } else if (hard_state_changes && n % 31 == 0) {
        feed_forbidden();
      } else if (n % 23 == 7) {
        feed_rejected();
      } else if (n % 3 == 0) {
        feed_answer(n % kKnownFlows);
      } else {
        feed_outgoing(n % kKnownFlows);
      }
    }
  }

  using FlowState = std::tuple<std::string, uint32_t, uint32_t, uint32_t, std::string>;
  // Everything about the flows but times.
  std::map<std::string, FlowState> state() {
    std::map<std::string, FlowState> flows;
    const auto bytes = [](const auto& value) {
      return std::string(reinterpret_cast<const char*>(&value), sizeof(value));
    };
    pool_->for_each_flow(0, [&](const FlowRecord& record) {
      flows[bytes(record.inside_key)] = {bytes(record.outside_key),
                                         static_cast<uint32_t>(record.phase), record.bucket,
                                         record.revision, bytes(record.hard)};
      return true;
    });
    return flows;
  }

  PoolDirectory fresh_;
};

class DeathAtStep : public WorkerDeath,
                    public testing::WithParamInterface<std::tuple<BurstStep, bool>> {};

TEST_P(DeathAtStep, LeavesPacketsAndStateOfAnUndisturbedRun) {
  const auto [step, hard_state_changes] = GetParam();
  establish(kKnownFlows);
  feed_bursts(hard_state_changes);
  die_at(step);
  const SlotRecovery report = recover();
  const bool committed = is_committed(step, hard_state_changes);
  EXPECT_EQ(rte_ring_count(inbox()), committed ? 150 - kBurst : 150);
  EXPECT_EQ(report.burst_completed, committed && step != BurstStep::kReleased);
  EXPECT_EQ(report.open_end - report.open_begin, committed ? 0 : kBurst);
  finish();
  const auto disturbed = state();

  start_over();
  establish(kKnownFlows);
  feed_bursts(hard_state_changes);
  finish();
  EXPECT_EQ(disturbed, state());
}

INSTANTIATE_TEST_SUITE_P(EveryStep, DeathAtStep,
                         testing::Combine(testing::ValuesIn(steps_of_a_burst()), testing::Bool()));

// The worker that takes over dies too, in its first burst, and the next one, at every pair of
// steps.
TEST_F(WorkerDeath, OfTwoInARowAtAnyTwoSteps) {
  establish(kKnownFlows);
  for (const BurstStep first : steps_of_a_burst()) {
    for (const BurstStep second : steps_of_a_burst()) {
      SCOPED_TRACE(std::string(burst_step_name(first)) + ", " +
                   std::string(burst_step_name(second)));
      if (flows_.size() < 3000) feed_outgoing(static_cast<uint32_t>(flows_.size()));
      feed_bursts(false);
      die_at(first);
      recover();
      die_at(second);
      recover();
      drain();
      serve();
      ASSERT_TRUE(in_flight_.empty() && !HasFailure());
    }
  }
  finish();
}

// Expired flows are closed between bursts, by a commit that moves no packet.
class DeathInSweep : public WorkerDeath, public testing::WithParamInterface<BurstStep> {};

TEST_P(DeathInSweep, ClosesExpiredFlowsOnceAndMovesNoPacket) {
  establish(kKnownFlows);
  ArenaHeader& header = arena_->header();
  const uint64_t base_ns = header.unix_base_ns;
  header.unix_base_ns += 10'000ULL * 1'000'000'000;  // all of them have been idle for too long
  die_at(GetParam());
  EXPECT_EQ(slot().sweeping.load(), 1U);
  EXPECT_TRUE(recover().redo_applied);
  EXPECT_LT(pool_->count_flows(0), uint64_t{kKnownFlows});
  EXPECT_EQ(page_leak(*pool_), "");
  EXPECT_EQ(slot().sweeping.load(), 0U);
  EXPECT_TRUE(rte_ring_empty(inbox()) && rte_ring_empty(outbox()));
  flows_.clear();
  external_ports_.clear();
  feed_outgoing(0);  // opens the flow anew
  serve();
  EXPECT_TRUE(in_flight_.empty());
  header.unix_base_ns = base_ns;
}

INSTANTIATE_TEST_SUITE_P(EveryStep, DeathInSweep,
                         testing::Values(BurstStep::kSweepCommitted, BurstStep::kSweepApplied));

// ---- The recovery dies too.

// Kills its process at the nth store, flush or fence.
class DiesAt final : public PersistenceObserver {
 public:
  explicit DiesAt(uint32_t operation) : left_(operation) {}
  void storing(void*, const void*, size_t) override { count(); }
  void flushing(const void*, size_t) override { count(); }
  void fencing() override { count(); }

 private:
  void count() {
    if (left_-- == 0) raise(SIGKILL);
  }
  uint32_t left_;
};

class DeathOfRecovery : public DeathAtStep {
 protected:
  // Runs recover_slot in a child. False: the child was killed, as `prepare` had it set up.
  template <typename Prepare>
  bool recover_in_a_child(Prepare prepare) {
    const pid_t pid = fork();
    if (pid == 0) {
      prepare();
      recover_slot(*arena_, *pool_, kSlot);
      _exit(0);
    }
    int status = 0;
    EXPECT_EQ(waitpid(pid, &status, 0), pid);
    const bool killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
    EXPECT_TRUE(killed || (WIFEXITED(status) && WEXITSTATUS(status) == 0)) << status;
    return !killed;
  }
  void begin() {
    const auto [step, hard_state_changes] = GetParam();
    establish(kKnownFlows);
    feed_bursts(hard_state_changes);
    die_at(step);
  }
  void expect_undisturbed() {
    finish();
    const auto disturbed = state();
    start_over();
    establish(kKnownFlows);
    feed_bursts(std::get<bool>(GetParam()));
    finish();
    EXPECT_EQ(disturbed, state());
  }
};

TEST_P(DeathOfRecovery, AtEachStoreToThePool) {
  begin();
  uint32_t deaths = 0;
  const auto at = [&] {
    DiesAt observer(deaths);
    pool_->persistence().observe(&observer);
    recover_slot(*arena_, *pool_, kSlot);
    _exit(0);
  };
  while (!recover_in_a_child(at) && deaths < 10'000) ++deaths;
  EXPECT_GT(deaths, 0U);
  EXPECT_LT(deaths, 10'000U);
  EXPECT_FALSE(recover().burst_undone);  // the last child has done it all
  expect_undisturbed();
}

class DeathInRecovery : public DeathOfRecovery {};

// One instruction at a time, to the rings' stores at its end. Each child goes further than the one
// before it, which left its work half done.
TEST_P(DeathInRecovery, BetweenAnyTwoInstructions) {
  begin();
  uint64_t instructions = 0;
  uint32_t deaths = 0;
  const uint64_t seed = std::random_device{}();
  std::printf("seed %lu\n", seed);
  std::mt19937_64 random(seed);
  for (bool whole = false; !whole && !HasFatalFailure(); ++deaths) {
    const pid_t pid = fork();
    if (pid == 0) {
      ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
      raise(SIGSTOP);
      recover_slot(*arena_, *pool_, kSlot);
      _exit(0);
    }
    int status = 0;
    ASSERT_EQ(waitpid(pid, &status, 0), pid);
    ASSERT_TRUE(WIFSTOPPED(status)) << "no tracing of children here";
    uint64_t ran = 0;
    for (; ran < instructions; ++ran) {
      ASSERT_EQ(ptrace(PTRACE_SINGLESTEP, pid, nullptr, nullptr), 0);
      ASSERT_EQ(waitpid(pid, &status, 0), pid);
      if (!WIFSTOPPED(status)) break;
    }
    whole = WIFEXITED(status);
    if (!whole) kill_worker(pid);
    instructions += 1 + random() % (1 + instructions / 2);
  }
  std::printf("%u recoveries killed, the last one ran %lu instructions\n", deaths - 1,
              instructions);
  expect_undisturbed();
}

INSTANTIATE_TEST_SUITE_P(EveryStep, DeathOfRecovery,
                         testing::Combine(testing::ValuesIn(steps_of_a_burst()),
                                          testing::Values(true)));

INSTANTIATE_TEST_SUITE_P(Steps, DeathInRecovery,
                         testing::Combine(testing::Values(BurstStep::kStaged, BurstStep::kCommitted,
                                                          BurstStep::kMarked,
                                                          BurstStep::kPublished),
                                          testing::Values(true)));

// ---- Packets taken out.

class TakenOut : public WorkerDeath {};

TEST_F(TakenOut, TheFirstPacketIsDroppedInItsPlaceAndAsItCame) {
  establish(kKnownFlows);
  feed_bursts(true);
  die_at(BurstStep::kStaged);  // the packets have been edited
  const SlotRecovery report = recover();
  ASSERT_EQ(report.open_end - report.open_begin, kBurst);
  ASSERT_EQ(first_packet(*arena_, kSlot), &in_flight_.front().packet->mbuf);
  in_flight_.front().verdict = Verdict::kDrop;
  ASSERT_TRUE(drop_first_packet(*arena_, kSlot, DropReason::kPoisonPacket));
  EXPECT_EQ(in_flight_.front().packet->meta.reason, DropReason::kPoisonPacket);
  EXPECT_EQ(rte_ring_count(inbox()), 149U);
  EXPECT_FALSE(recover().burst_completed);  // it is committed, published and released
  EXPECT_EQ(rte_ring_count(outbox()), 1U);
  feed_outgoing(kKnownFlows);  // its flow goes on: this packet opens it
  finish();
}

TEST_F(TakenOut, AnEmptyInboxHasNoFirstPacket) {
  EXPECT_EQ(first_packet(*arena_, kSlot), nullptr);
  EXPECT_FALSE(drop_first_packet(*arena_, kSlot, DropReason::kPoisonPacket));
}

// Bursts of one up to the position, then whole ones again.
TEST_F(TakenOut, ACarefulWorkerTakesOnePacketAtATime) {
  establish(kKnownFlows);
  feed_bursts(false);
  be_careful_until(slot(), inbox()->cons.tail + 10);
  for (uint32_t done = 0; done < 10; ++done) {
    die_at(BurstStep::kReleased);
    EXPECT_EQ(rte_ring_count(inbox()), 149 - done);
    recover();
  }
  die_at(BurstStep::kReleased);  // its predecessor died before it could end its caution
  EXPECT_EQ(rte_ring_count(inbox()), 139U);
  EXPECT_EQ(slot().burst_limit.load(), 1U);
  recover();
  serve();
  EXPECT_EQ(slot().burst_limit.load(), kBurst);
  feed_bursts(false);
  die_at(BurstStep::kReleased);
  EXPECT_EQ(rte_ring_count(inbox()), 150 - kBurst);
  recover();
  finish();
}

}  // namespace
}  // namespace flowkeep
