// Flows that share their endpoint's mapping, and records that are no flows: what the index finds,
// the counts, and that check and repair understand them. Against a model, also with the pool opened
// anew.
#include <map>
#include <random>
#include <set>
#include <sstream>

#include "state/index_keys.h"
#include "state/pool_test_support.h"
#include "state/tool/pool_tool.h"

namespace flowkeep {
namespace {

constexpr uint64_t kBytes = 64 << 20;
constexpr uint32_t kBucket = 3;
constexpr uint16_t kRemotes[] = {1, 2, 3};

// Flow of endpoint `local` to remote number `remote`; outside the endpoint is `external`.
FlowKey inside_of(uint16_t local, uint16_t remote) {
  return {Be32::from_host(0x0a000002),
          Be32::from_host(0xc6120000u + remote),
          Be16::from_host(local),
          Be16::from_host(443),
          17,
          Side::kInside};
}
FlowKey outside_of(uint16_t local, uint16_t remote, uint16_t external) {
  FlowKey key = inside_of(local, remote).reversed();
  key.dst = Be32::from_host(0xcb00710a);
  key.dst_port = Be16::from_host(external);
  return key;
}
FlowKey keyed_of(uint16_t n) {
  FlowKey key = inside_of(n, 0);
  key.mark = kKeyedMark;
  return key;
}

class MappedFlows : public testing::Test {
 protected:
  void SetUp() override {
    pool = open_pool(directory, kBytes);
    ASSERT_TRUE(pool->attach_chain("chain", 16).ok());
    table = std::make_unique<FlowTable>(*pool, 0, 0);
  }
  OpenStatus open(uint16_t local, uint16_t remote, uint16_t external) {
    const auto opened =
        table->open_mapped(kBucket, inside_of(local, remote), outside_of(local, remote, external));
    if (opened.status == OpenStatus::kOk) commit_and_apply(*table);
    return opened.status;
  }
  RecordId find(const FlowKey& key) const {
    return table->find(kBucket, key, hash_key(key, table->hash_secret()));
  }
  RecordId host_of(uint16_t local) const { return find(endpoint_key(inside_of(local, 0))); }
  void close(uint16_t local, uint16_t remote) {
    table->close(find(inside_of(local, remote)));
    commit_and_apply(*table);
  }
  void expect_sound() {
    std::ostringstream out, errors;
    EXPECT_EQ(run_pool_tool({"check", directory.file()}, out, errors), kPoolFine)
        << out.str() << errors.str();
  }

  PoolDirectory directory;
  std::unique_ptr<Pool> pool;
  std::unique_ptr<FlowTable> table;
};

TEST_F(MappedFlows, TheFirstFlowIsTheHostAndTheOthersAreGuests) {
  ASSERT_EQ(open(1000, 1, 5000), OpenStatus::kOk);
  ASSERT_EQ(open(1000, 2, 5000), OpenStatus::kOk);
  EXPECT_EQ(table->record(find(inside_of(1000, 1))).users, 2u);
  EXPECT_TRUE(is_guest(table->record(find(inside_of(1000, 2)))));
  EXPECT_EQ(host_of(1000), find(inside_of(1000, 1)));
  EXPECT_EQ(find(outside_of(1000, 1, 5000)), find(inside_of(1000, 1)));
  EXPECT_EQ(find(outside_of(1000, 2, 5000)), find(inside_of(1000, 2)));
  EXPECT_EQ(find(endpoint_key(outside_of(1000, 9, 5000))), host_of(1000));
  EXPECT_EQ(find(outside_of(1000, 3, 5000)), 0u);
  EXPECT_EQ(pool->count_flows(0), 2u);
  expect_sound();
}

TEST_F(MappedFlows, AnEndpointHasOneNameAndANameOneEndpoint) {
  ASSERT_EQ(open(1000, 1, 5000), OpenStatus::kOk);
  EXPECT_EQ(open(1000, 2, 5001), OpenStatus::kKeyExists);
  EXPECT_EQ(open(1000, 1, 5000), OpenStatus::kKeyExists);
  EXPECT_EQ(open(1001, 1, 5000), OpenStatus::kKeyExists);
  EXPECT_EQ(open(1001, 1, 5001), OpenStatus::kOk);
  expect_sound();
}

TEST_F(MappedFlows, AHostThatEndsStaysForItsGuestsAndTakesTheNextFlow) {
  for (const uint16_t remote : kRemotes) ASSERT_EQ(open(1000, remote, 5000), OpenStatus::kOk);
  const RecordId host = host_of(1000);
  close(1000, 1);
  EXPECT_EQ(find(inside_of(1000, 1)), 0u);
  EXPECT_EQ(host_of(1000), host);
  EXPECT_EQ(table->record(host).phase, FlowPhase::kKeyed);
  EXPECT_EQ(pool->count_flows(0), 2u);
  EXPECT_EQ(table->keyed(kBucket), 1u);
  uint32_t seen = 0;
  pool->for_each_flow(0, [&](const FlowRecord&) { return ++seen, true; });
  EXPECT_EQ(seen, 2u);
  expect_sound();
  ASSERT_EQ(open(1000, 4, 5000), OpenStatus::kOk);
  EXPECT_EQ(find(inside_of(1000, 4)), host);
  EXPECT_EQ(table->keyed(kBucket), 0u);
  expect_sound();
  close(1000, 4);
  close(1000, 2);
  close(1000, 3);
  EXPECT_EQ(host_of(1000), 0u);
  EXPECT_EQ(pool->count_flows(0), 0u);
  EXPECT_EQ(table->keyed(kBucket), 0u);
  expect_sound();
}

TEST_F(MappedFlows, KeyedRecordsAreNoFlows) {
  FlowKey second = keyed_of(7).reversed();
  const auto single = table->open_keyed(kBucket, keyed_of(1));
  const auto pair = table->open_keyed(kBucket, keyed_of(2), &second);
  ASSERT_EQ(single.status, OpenStatus::kOk);
  ASSERT_EQ(pair.status, OpenStatus::kOk);
  commit_and_apply(*table);
  EXPECT_EQ(find(keyed_of(1)), single.id);
  EXPECT_EQ(find(keyed_of(2)), pair.id);
  EXPECT_EQ(find(second), pair.id);
  EXPECT_EQ(table->open_keyed(kBucket, keyed_of(1)).status, OpenStatus::kKeyExists);
  EXPECT_EQ(pool->count_flows(0), 0u);
  EXPECT_EQ(table->keyed(kBucket), 2u);
  expect_sound();
  table->close(single.id);
  table->close(pair.id);
  commit_and_apply(*table);
  EXPECT_EQ(table->keyed(kBucket), 0u);
  expect_sound();
}

// The whole bucket is put back from its records: the header's first word leads nowhere.
TEST_F(MappedFlows, RepairKeepsMappingsAndKeyedState) {
  for (const uint16_t remote : kRemotes) ASSERT_EQ(open(1000, remote, 5000), OpenStatus::kOk);
  ASSERT_EQ(open(1001, 1, 5001), OpenStatus::kOk);
  close(1000, 1);
  const auto keyed = table->open_keyed(kBucket, keyed_of(1));
  table->stage(keyed.id).hard[0] = 42;
  commit_and_apply(*table);
  const auto lines = Regions(pool->base(), Geometry::of(kBytes));
  lines.bucket(0, kBucket).root_page = 1;
  table.reset();
  pool.reset();
  std::ostringstream out, errors;
  ASSERT_EQ(run_pool_tool({"repair", directory.file()}, out, errors), kPoolFine) << errors.str();
  expect_sound();
  pool = open_pool(directory, kBytes);
  table = std::make_unique<FlowTable>(*pool, 0, 0);
  EXPECT_EQ(pool->count_flows(0), 3u);
  EXPECT_NE(host_of(1000), 0u);
  EXPECT_NE(find(outside_of(1000, 2, 5000)), 0u);
  EXPECT_EQ(table->record(find(keyed_of(1))).hard[0], 42);
}

class RandomMappedFlows : public MappedFlows, public testing::WithParamInterface<uint32_t> {};
INSTANTIATE_TEST_SUITE_P(Seeds, RandomMappedFlows, testing::Values(1u, 2u, 3u));

TEST_P(RandomMappedFlows, AreWhatAModelSays) {
  SCOPED_TRACE("seed " + std::to_string(GetParam()));
  std::mt19937 random(GetParam());
  std::map<uint16_t, std::set<uint16_t>> model;  // local port: remotes
  uint64_t flows = 0;
  for (int step = 0; step < 3000; ++step) {
    const auto local = static_cast<uint16_t>(random() % 40);
    const auto remote = static_cast<uint16_t>(random() % 6);
    std::set<uint16_t>& remotes = model[local];
    if (random() % 2 == 0) {
      const bool is_new = remotes.insert(remote).second;
      ASSERT_EQ(open(local, remote, static_cast<uint16_t>(100 + local)),
                is_new ? OpenStatus::kOk : OpenStatus::kKeyExists);
      flows += is_new ? 1 : 0;
    } else if (remotes.erase(remote) != 0) {
      close(local, remote);
      --flows;
    }
    ASSERT_EQ(find(inside_of(local, remote)) != 0, remotes.contains(remote));
    ASSERT_EQ(host_of(local) != 0, !remotes.empty());
    ASSERT_EQ(pool->count_flows(0), flows);
    if (step % 500 == 0) expect_sound();
  }
  expect_sound();
}

}  // namespace
}  // namespace flowkeep
