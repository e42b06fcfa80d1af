// Crashes. A process dies between any two stores; a power cut drops or keeps any line that no fence
// covers; SIGKILL hits a real process anywhere. After recovery the pool holds the state before or
// after a burst, never anything between, and no page is lost.
#include <signal.h>
#include <sys/wait.h>

#include <functional>
#include <vector>

#include "state/persistence.h"
#include "state/pool_test_support.h"
#include "state/redo_record.h"

namespace flowkeep {
namespace {

constexpr uint64_t kPoolBytes = 5 * 1024 * 1024;

// A flow's extent follows from its hard state: every other flow has one, of up to six blocks.
std::vector<std::byte> extent_of(uint64_t state) {
  if (state % 2 == 0) return {};
  std::vector<std::byte> content(1 + state / 2 % 3'000);
  std::mt19937_64 random(state);
  for (std::byte& byte : content) byte = static_cast<std::byte>(random());
  return content;
}

// difference(), and the extents.
std::string loss(Pool& pool, const FlowModel& model) {
  if (const std::string lost = difference(pool, model); !lost.empty()) return lost;
  const FlowTable table(pool, 0, kMaxWorkerSlots - 1);
  for (const auto& [bucket, of_bucket] : model) {
    for (const auto& [n, state] : of_bucket) {
      const auto content = table.extent(find_inside(table, bucket, n));
      if (!std::ranges::equal(content, extent_of(state))) {
        return "flow " + std::to_string(n) + ": extent";
      }
    }
  }
  return "";
}

void set_state(FlowTable& table, RecordId id, uint64_t state) {
  std::memcpy(table.stage(id).hard, &state, sizeof(state));
  ASSERT_EQ(table.set_extent(id, extent_of(state)), OpenStatus::kOk);
}

// Burst number n, the same each time for the same state: some openings, changes and closings.
struct FlowRange {
  uint32_t first;
  uint32_t count;
};
void run_burst(FlowTable& table, FlowModel& model, uint64_t n, uint32_t buckets, FlowRange flows,
               uint32_t changes) {
  std::mt19937_64 random(n);
  for (uint32_t i = 0; i < changes; ++i) {
    const auto flow = flows.first + static_cast<uint32_t>(random() % flows.count);
    const uint32_t bucket = flow % buckets;
    const uint64_t state = random();
    const RecordId id = find_inside(table, bucket, flow);
    ASSERT_EQ(id != 0, model[bucket].contains(flow));
    if (id == 0) {
      const auto opened = open_flow(table, bucket, flow, state);
      ASSERT_EQ(opened.status, OpenStatus::kOk);
      set_state(table, opened.id, state);
      model[bucket][flow] = state;
    } else if (state % 3 == 0) {
      table.close(id);
      model[bucket].erase(flow);
    } else {
      set_state(table, id, state);
      model[bucket][flow] = state;
    }
    table.touch(id != 0 ? id : find_inside(table, bucket, flow), 5000);
  }
}

class CrashTest : public testing::Test {
 protected:
  void SetUp() override {
    pool = open_pool(directory, kPoolBytes);
    ASSERT_TRUE(pool && pool->attach_chain("chain", 4).ok());
  }
  std::vector<std::byte> image() const { return {pool->base(), pool->base() + pool->bytes()}; }
  void restore(const std::vector<std::byte>& bytes) {
    std::memcpy(pool->base(), bytes.data(), bytes.size());
  }
  void cut_power(const FlowModel& model, uint32_t buckets, FlowRange flows);

  PoolDirectory directory;
  std::unique_ptr<Pool> pool;
};

// One burst that opens, changes and closes flows, claims pages and splits a segment.
class OneBurstCrashTest : public CrashTest {
 protected:
  void SetUp() override {
    CrashTest::SetUp();
    fill_until_next_deepens_to(1);
  }
  // The opening of flow `filled` - 1 would deepen bucket 0's directory to `depth`.
  void fill_until_next_deepens_to(uint32_t depth) {
    const Regions regions(pool->base(), Geometry::of(pool->bytes()));
    const std::vector<std::byte> empty = image();
    filled = 0;
    {
      FlowTable table(*pool, 0, 0);
      while (regions.bucket(0, 0).depth < depth) commit_one(table, filled++);
    }
    restore(empty);
    before.clear();
    FlowTable table(*pool, 0, 0);
    for (uint32_t n = 0; n + 1 < filled; ++n) {
      commit_one(table, n);
      before[0][n] = n;
    }
    start = image();
  }
  void commit_one(FlowTable& table, uint32_t n) {
    set_state(table, open_flow(table, 0, n, n).id, n);
    commit_and_apply(table);
  }
  void stage_burst(FlowTable& table) {
    set_state(table, open_flow(table, 0, filled - 1, 1).id, 1);
    set_state(table, open_flow(table, 1, 90'000, kState).id, kState);
    table.close(find_inside(table, 0, 3));
    set_state(table, find_inside(table, 0, 4), kState);
    set_state(table, find_inside(table, 0, 5), 4);
  }
  void burst() {
    FlowTable table(*pool, 0, 0);
    stage_burst(table);
    table.commit({});
    committed = true;
    table.apply();
  }
  void set_up_model() {
    after = before;
    after[0][filled - 1] = 1;
    after[1][90'000] = kState;
    after[0].erase(3);
    after[0][4] = kState;
    after[0][5] = 4;
  }

  static constexpr uint64_t kState = 4'001;  // has an extent of several blocks
  uint32_t filled = 0;
  std::vector<std::byte> start;
  FlowModel before;
  FlowModel after;
  bool committed = false;
};

TEST_F(OneBurstCrashTest, DeathAtEachStoreLeavesAllOrNothing) {
  set_up_model();
  uint64_t operations = 0;
  uint64_t found_before = 0;
  for (bool was_killed = true; was_killed; ++operations) {
    restore(start);
    committed = false;
    KillAfter kill(operations);
    was_killed = killed(*pool, kill, [&] { burst(); });
    const bool is_after =
        read_log(Regions(pool->base(), Geometry::of(kPoolBytes)), 0).newest() > before[0].size();
    ASSERT_TRUE(is_after || !committed) << "a committed burst was lost, operation " << operations;
    pool->recover_all();
    ASSERT_EQ(loss(*pool, is_after ? after : before), "") << "operation " << operations;
    ASSERT_EQ(page_leak(*pool), "") << "operation " << operations;
    found_before += is_after ? 0 : 1;
  }
  EXPECT_GT(found_before, 100u);
  EXPECT_GT(operations, found_before + 20);
}

TEST_F(OneBurstCrashTest, RecoveryKilledAnywhereAndRunAgain) {
  set_up_model();
  // Dead right after the commit point, and dead with pages claimed but nothing committed.
  for (const bool commit_first : {true, false}) {
    uint64_t operations = 0;
    for (bool was_killed = true; was_killed; ++operations) {
      restore(start);
      {
        FlowTable table(*pool, 0, 0);
        stage_burst(table);
        if (commit_first) table.commit({});
      }
      KillAfter kill(operations);
      was_killed = killed(*pool, kill, [&] { pool->recover_all(); });
      pool->recover_all();
      ASSERT_EQ(loss(*pool, commit_first ? after : before), "") << operations;
      ASSERT_EQ(page_leak(*pool), "") << operations;
    }
    EXPECT_GT(operations, 20u);
  }
}

TEST_F(OneBurstCrashTest, EachTornRedoRecordIsRefused) {
  set_up_model();
  {
    FlowTable table(*pool, 0, 0);
    open_flow(table, 0, filled - 1, 1);
    table.commit({});
  }
  const std::vector<std::byte> whole = image();
  const Regions regions(pool->base(), Geometry::of(kPoolBytes));
  const uint64_t sequence = read_log(regions, 0).newest();
  std::byte* slot = regions.redo_slot(0, sequence);
  const auto& header = *reinterpret_cast<const RedoHeader*>(slot);
  const size_t bytes = sizeof(header) + header.payload_bytes;
  for (size_t at = 0; at < bytes; at += 8) {
    std::memset(slot + at, at % 16 == 0 ? 0xa5 : 0x5a, 8);
    const auto report = pool->recover_all();
    if (at == offsetof(RedoHeader, sequence)) {
      // No write that was cut short leaves this: it may have been any burst's.
      EXPECT_TRUE(report.refused);
    } else {
      EXPECT_FALSE(report.refused) << "byte " << at;
      EXPECT_EQ(report.redo_records_torn, 1u) << "byte " << at;
      EXPECT_EQ(loss(*pool, before), "") << "byte " << at;
    }
    restore(whole);
  }
}

TEST_F(CrashTest, DeathWhileAChainIsDroppedIsFinishedByRecovery) {
  FlowTable table(*pool, 0, 0);
  for (uint32_t n = 0; n < 40; ++n) open_flow(table, n % 4, n, n), commit_and_apply(table);
  table.lease_acquire(0, 30, 1);
  const std::vector<std::byte> start = image();
  std::mt19937_64 random(1);
  uint64_t operations = 0;
  for (bool was_killed = true; was_killed; operations += 1 + random() % 500) {
    restore(start);
    KillAfter kill(operations);
    was_killed = killed(*pool, kill, [&] { ASSERT_TRUE(pool->drop_chain("chain").ok()); });
    pool->recover_all();
    if (operations == 0) continue;  // nothing had happened yet
    EXPECT_EQ(pool->free_pages(), pool->total_pages()) << operations;
    EXPECT_EQ(pool->count_flows(0), 0u);
    EXPECT_EQ(pool->port_leases(0)[30], 0u);
    const auto again = pool->attach_chain("chain", 8);
    ASSERT_TRUE(again.ok());
    EXPECT_FALSE(again->existed);
  }
}

// What persistent memory holds when the power goes: each line as some fence left it, or as it was
// at some later moment; lines of the redo logs, which are written around the cache, torn by the
// word.
class PowerCut : public PersistenceObserver {
 public:
  // After so many operations, or just before the fence after so many fences: the moment when most
  // is at stake.
  PowerCut(Pool& pool, uint64_t operations, uint64_t fences, uint64_t seed)
      : pool_(pool),
        regions_(pool.base(), Geometry::of(pool.bytes())),
        operations_left_(operations),
        fences_left_(fences),
        random_(seed) {}

  void storing(void* to, const void*, size_t) override {
    step();
    const uint64_t line = line_of(to);
    durable_.try_emplace(line, read(line));
    versions_[line].push_back(read(line));
  }
  void flushing(const void* address, size_t bytes) override {
    step();
    if (bytes == 0) return;
    for (uint64_t line = line_of(address);
         line <= line_of(static_cast<const std::byte*>(address) + bytes - 1); ++line) {
      if (versions_.contains(line)) flushed_[line] = versions_[line].size();
    }
  }
  // A flushed line is now at least as new as when it was flushed.
  void fencing() override {
    step();
    if (fences_left_-- == 0) throw Killed();
    for (const auto& [line, count] : flushed_) {
      auto& versions = versions_[line];
      versions.push_back(read(line));
      durable_[line] = versions[count];
      versions.erase(versions.begin(), versions.begin() + static_cast<ptrdiff_t>(count));
      versions.pop_back();
      if (versions.empty()) versions_.erase(line);
    }
    flushed_.clear();
  }

  // A processor's fence says nothing of what another one flushed.
  void other_processor_goes_on() { flushed_.clear(); }

  // Puts what is left after the cut into the pool.
  void cut() {
    const Survival logs = draw();
    const Survival others = draw();
    for (auto& [line, versions] : versions_) {
      versions.push_back(read(line));
      std::byte* kept = durable_[line].bytes;
      const Survival survival = is_log_slot(line) ? logs : others;
      if (survival == Survival::kAll) {
        std::memcpy(kept, versions.back().bytes, kLineBytes);
      } else if (survival == Survival::kSome && is_log_slot(line)) {
        for (size_t word = 0; word < kLineBytes; word += 8) {
          std::memcpy(kept + word, versions[random_() % versions.size()].bytes + word, 8);
        }
      } else if (survival == Survival::kSome) {
        std::memcpy(kept, versions[random_() % versions.size()].bytes, kLineBytes);
      }
    }
    for (const auto& [line, content] : durable_) {
      std::memcpy(pool_.base() + line * kLineBytes, content.bytes, kLineBytes);
    }
  }

 private:
  struct Line {
    std::byte bytes[kLineBytes];
  };

  void step() {
    if (operations_left_-- == 0) throw Killed();
  }
  uint64_t line_of(const void* address) const {
    return static_cast<uint64_t>(static_cast<const std::byte*>(address) - pool_.base()) /
           kLineBytes;
  }
  Line read(uint64_t line) const {
    Line content;
    std::memcpy(content.bytes, pool_.base() + line * kLineBytes, kLineBytes);
    return content;
  }
  bool is_log_slot(uint64_t line) const {
    const uint64_t at = line * kLineBytes;
    const Geometry& geometry = regions_.geometry();
    return at >= geometry.logs_at && at < geometry.page_table_at &&
           (at - geometry.logs_at) % kLogBytes >= sizeof(LogHeader);
  }

  // What becomes of the lines that no fence covers.
  enum class Survival { kNone, kSome, kAll };
  Survival draw() { return static_cast<Survival>(random_() % 3); }

  Pool& pool_;
  const Regions regions_;
  std::unordered_map<uint64_t, Line> durable_;                // of the lines that were stored to
  std::unordered_map<uint64_t, std::vector<Line>> versions_;  // contents before each store
  std::unordered_map<uint64_t, size_t> flushed_;              // versions that the flush made old
  uint64_t operations_left_;
  uint64_t fences_left_;
  std::mt19937_64 random_;
};

// Five bursts on top of `model`, the power cut at a random operation, four hundred times over.
void CrashTest::cut_power(const FlowModel& model, uint32_t buckets, FlowRange flows) {
  constexpr uint32_t kBursts = 5;
  const uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  const std::vector<std::byte> start = image();
  for (int trial = 0; trial < 400; ++trial) {
    SCOPED_TRACE("trial " + std::to_string(trial));
    restore(start);
    const uint64_t first = random();
    std::vector<FlowModel> models = {model};
    uint32_t committed = 0;
    const bool at_fence = random() % 2 == 0;
    PowerCut power(*pool, at_fence ? UINT64_MAX : random() % 6'000,
                   at_fence ? random() % 20 : UINT64_MAX, random());
    killed(*pool, power, [&] {
      auto table = std::make_unique<FlowTable>(*pool, 0, 0);
      for (uint32_t burst = 0; burst < kBursts; ++burst) {
        models.push_back(models.back());
        run_burst(*table, models.back(), first + burst, buckets, flows, 8);
        const uint64_t sequence = table->commit({});
        ++committed;
        table->apply();
        // A successor goes on with the log; what its predecessor still meant to flush is its to do.
        if (random() % 4 == 0) table = std::make_unique<FlowTable>(*pool, 0, 0);
        if (random() % 3 != 0) continue;
        power.other_processor_goes_on();
        RedoLog(*pool, 0).retire(sequence);
      }
    });
    power.cut();
    // And once more while it recovers.
    PowerCut again(*pool, random() % 300, UINT64_MAX, random());
    killed(*pool, again, [&] { pool->recover_all(); });
    again.cut();
    pool->recover_all();
    const bool one_more = committed + 1 < models.size();
    const std::string lost = loss(*pool, models[committed]);
    ASSERT_TRUE(lost.empty() || (one_more && loss(*pool, models[committed + 1]).empty()))
        << lost << " after " << committed << " committed bursts";
    ASSERT_EQ(page_leak(*pool), "");
  }
}

TEST_F(CrashTest, PowerCutLosesNoBurstWhoseFenceCompleted) {
  cut_power({}, 4, {0, 60});
}

TEST_F(OneBurstCrashTest, PowerCutWhileSegmentsSplit) {
  cut_power(before, 1, {filled - 10, 40});
}

TEST_F(OneBurstCrashTest, PowerCutWhileTheDirectoryDeepensInPlace) {
  ASSERT_TRUE(pool->drop_chain("chain").ok());
  ASSERT_TRUE(pool->attach_chain("chain", 4).ok());
  fill_until_next_deepens_to(4);
  cut_power(before, 1, {filled - 2, 30});
}

// SIGKILL at moments that nobody chose, while the supervisor retires bursts.
class SigkillTest : public testing::TestWithParam<int> {};

TEST_P(SigkillTest, RecoversEachTime) {
  constexpr uint32_t kFlows = 1'500;
  const bool emulate_pmem = GetParam() < 200;
  constexpr uint32_t kBuckets = 4;
  const uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  PoolDirectory directory;
  auto pool = open_pool(directory, 8 * 1024 * 1024, emulate_pmem);
  ASSERT_TRUE(pool && pool->attach_chain("chain", kBuckets).ok());
  const Regions regions(pool->base(), Geometry::of(pool->bytes()));
  PoolDirectory replay_directory;
  auto replay_pool = open_pool(replay_directory, 8 * 1024 * 1024);
  ASSERT_TRUE(replay_pool && replay_pool->attach_chain("chain", kBuckets).ok());
  FlowTable replay(*replay_pool, 0, 0);

  FlowModel model;
  uint64_t bursts = 0;  // burst n commits as sequence n
  for (int kill_number = 0; kill_number < GetParam(); ++kill_number) {
    const pid_t child = fork();
    if (child == 0) {
      FlowTable table(*pool, 0, 0);
      for (uint64_t burst = bursts + 1;; ++burst) {
        run_burst(table, model, seed + burst, kBuckets, {0, kFlows}, 32);
        commit_and_apply(table);
      }
    }
    RedoLog log(*pool, 0);
    const uint64_t until = bursts + random() % 20;
    while (log.applied() < until) {
      if (random() % 4 == 0) log.retire(log.applied());
    }
    for (volatile uint64_t spin = random() % 20'000; spin > 0;) spin = spin - 1;
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);

    const uint64_t newest = read_log(regions, 0).newest();
    ASSERT_GE(newest, until);
    pool->recover_all();
    for (; bursts < newest; ++bursts) {
      run_burst(replay, model, seed + bursts + 1, kBuckets, {0, kFlows}, 32);
      commit_and_apply(replay);
    }
    ASSERT_EQ(loss(*pool, model), "") << "kill " << kill_number;
    ASSERT_EQ(page_leak(*pool), "") << "kill " << kill_number;
  }
  RecordProperty("bursts", std::to_string(bursts));
}

INSTANTIATE_TEST_SUITE_P(Media, SigkillTest, testing::Values(200, 50), [](const auto& info) {
  return std::string(info.param == 200 ? "Tmpfs" : "Emulated");
});

}  // namespace
}  // namespace flowkeep
