// For the tests of state/ and of what is built on it: a pool in a file of its own that goes away
// with the test, keys made from numbers, and the checks that any pool between two bursts must pass.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <unordered_map>

#include "state/flow_table.h"
#include "state/flow_text.h"
#include "state/layout.h"
#include "state/persistence.h"
#include "state/pool.h"
#include "state/pool_check.h"
#include "state/record_checksum.h"

namespace flowkeep {

class PoolDirectory {
 public:
  explicit PoolDirectory(const char* where = "/dev/shm") {
    std::string pattern = std::string(where) + "/flowkeep-pool-XXXXXX";
    path_ = mkdtemp(pattern.data());
  }
  ~PoolDirectory() {
    unlink(file().c_str());
    rmdir(path_.c_str());
  }
  PoolDirectory(const PoolDirectory&) = delete;
  PoolDirectory& operator=(const PoolDirectory&) = delete;
  std::string file() const { return path_ + "/pool"; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

inline std::unique_ptr<Pool> open_pool(const PoolDirectory& directory, uint64_t bytes,
                                       bool emulate_pmem = false) {
  auto pool = Pool::open({directory.file(), bytes, emulate_pmem});
  EXPECT_TRUE(pool.ok()) << (pool.ok() ? "" : pool.error().text());
  return pool.ok() ? std::move(pool).value() : nullptr;
}

// Where a process dies.
struct Killed {};

// Lets `operations` stores, flushes and fences happen, then throws.
class KillAfter : public PersistenceObserver {
 public:
  explicit KillAfter(uint64_t operations) : left_(operations) {}
  void storing(void*, const void*, size_t) override { step(); }
  void flushing(const void*, size_t) override { step(); }
  void fencing() override { step(); }

 private:
  void step() {
    if (left_-- == 0) throw Killed();
  }
  uint64_t left_;
};

// Runs `work` until the observer kills it. False: it ran to its end.
inline bool killed(Pool& pool, PersistenceObserver& observer, const std::function<void()>& work) {
  pool.persistence().observe(&observer);
  bool was_killed = false;
  try {
    work();
  } catch (const Killed&) {
    was_killed = true;
  }
  pool.persistence().observe(nullptr);
  return was_killed;
}

// Keys of flow number n; distinct for distinct n below 2^28, and for distinct sides.
inline FlowKey inside_key(uint32_t n) {
  return {Be32::from_host(0x0a000000 | n >> 12),
          Be32::from_host(0xc0000201),
          Be16::from_host(static_cast<uint16_t>(1024 + (n & 0xfff))),
          Be16::from_host(443),
          6,
          Side::kInside,
          0};
}
inline FlowKey outside_key(uint32_t n) {
  FlowKey key = inside_key(n).reversed();
  key.dst = Be32::from_host(0xc6336400 | n >> 20);
  key.src = Be32::from_host(0x0b000000 | (n >> 12 & 0xff));
  return key;
}

// Flow number n: every fourth is of IPv6, the others have the keys above.
struct NumberedFlow {
  bool is_wide;
  WideAddresses addresses;
  FlowKey inside;
  FlowKey outside;
};
inline bool is_wide(uint32_t n) {
  return n % 4 == 3;
}
inline NumberedFlow numbered_flow(uint32_t n, HashSecret secret) {
  if (!is_wide(n)) return {false, {}, inside_key(n), outside_key(n)};
  WideAddresses addresses;
  addresses.src = {0x20, 0x01, 0x0d, 0xb8};
  addresses.dst = {0x20, 0x01, 0x0d, 0xb8, 0xff};
  std::memcpy(addresses.src.data() + 8, &n, sizeof(n));
  FlowKey inside = wide_key(addresses, 6, Side::kInside, secret);
  inside.src_port = inside_key(n).src_port;
  inside.dst_port = inside_key(n).dst_port;
  return {true, addresses, inside, inside.reversed()};
}
// How the flow is called in texts.
inline std::string name_of_flow(uint32_t n) {
  const NumberedFlow flow = numbered_flow(n, {});
  FlowRecord record = {};
  record.inside_key = flow.inside;
  record.addresses = flow.addresses;
  return inside_text(record);
}

inline RecordId find_inside(const FlowTable& table, uint32_t bucket, uint32_t n) {
  const HashSecret secret = table.hash_secret();
  const NumberedFlow flow = numbered_flow(n, secret);
  return table.find(bucket, flow.inside, hash_key(flow.inside, secret), &flow.addresses);
}
inline RecordId find_outside(const FlowTable& table, uint32_t bucket, uint32_t n) {
  const HashSecret secret = table.hash_secret();
  const NumberedFlow flow = numbered_flow(n, secret);
  const WideAddresses reversed = flow.addresses.reversed();
  return table.find(bucket, flow.outside, hash_key(flow.outside, secret), &reversed);
}

// Opens flow n with `state` as its hard state. The caller commits.
inline FlowTable::Opened open_flow(FlowTable& table, uint32_t bucket, uint32_t n, uint64_t state) {
  const NumberedFlow flow = numbered_flow(n, table.hash_secret());
  const auto opened =
      table.open(bucket, flow.inside, flow.outside, flow.is_wide ? &flow.addresses : nullptr);
  if (opened.status == OpenStatus::kOk) {
    FlowRecord& record = table.stage(opened.id);
    record.phase = FlowPhase::kEstablished;
    record.last_seen_s = 1000;
    std::memcpy(record.hard, &state, sizeof(state));
  }
  return opened;
}

inline uint64_t hard_word(const FlowRecord& record) {
  uint64_t state = 0;
  std::memcpy(&state, record.hard, sizeof(state));
  return state;
}

inline void commit_and_apply(FlowTable& table) {
  table.commit({});
  table.apply();
}

// What a pool should hold: bucket -> flow number -> first word of its hard state.
using FlowModel = std::map<uint32_t, std::unordered_map<uint32_t, uint64_t>>;

inline uint64_t flows_of(const FlowModel& model) {
  uint64_t flows = 0;
  for (const auto& [bucket, of_bucket] : model) flows += of_bucket.size();
  return flows;
}

// "" if every record of chain 0 that has been used carries its checksum, free ones too.
inline std::string bad_checksum(Pool& pool) {
  const Regions regions(pool.base(), Geometry::of(pool.bytes()));
  for (uint32_t bucket = 0; bucket < kMaxBuckets; ++bucket) {
    uint32_t used = regions.bucket(0, bucket).records_used;
    for (uint32_t page = regions.bucket(0, bucket).record_page; page != 0;
         page = static_cast<uint32_t>(regions.page_word(page) >> 32), used = kRecordsPerPage) {
      for (RecordId id = record_id(page, 0); id < record_id(page, used); ++id) {
        const FlowRecord& record = regions.record(id);
        if (record.checksum != record_checksum(id, record)) {
          return "checksum of record " + std::to_string(id);
        }
      }
    }
  }
  return "";
}

// "" if the checker finds nothing wrong with the pool, which is between two bursts.
inline std::string first_finding(const Regions& regions) {
  Findings findings;
  check_superblocks(regions, findings);
  check_chain_directory(regions, findings);
  check_logs(regions, findings);
  check_pool(regions, findings);
  for (const Finding& finding : findings.listed()) {
    if (finding.severity == Severity::kNote) continue;
    return finding.where + ": " + finding.what + ": " + finding.found + ", expected " +
           finding.expected;
  }
  return "";
}

// "" if chain 0 of the pool holds exactly the model's flows, each found by both of its keys;
// otherwise what is wrong. `numbers`: flow numbers lie below it.
inline std::string difference(Pool& pool, const FlowModel& model) {
  FlowTable table(pool, 0, kMaxWorkerSlots - 1);
  if (pool.count_flows(0) != flows_of(model)) {
    return "count_flows " + std::to_string(pool.count_flows(0)) + ", model " +
           std::to_string(flows_of(model));
  }
  for (const auto& [bucket, of_bucket] : model) {
    if (table.flows(bucket) != of_bucket.size()) return "flows of bucket " + std::to_string(bucket);
    for (const auto& [n, state] : of_bucket) {
      const std::string flow = "flow " + std::to_string(n);
      const RecordId id = find_inside(table, bucket, n);
      if (id == 0) return flow + " is not found by its inside key";
      if (find_outside(table, bucket, n) != id) return flow + ": keys find different records";
      if (hard_word(table.record(id)) != state) return flow + ": hard state";
      if (table.record(id).bucket != bucket) return flow + ": bucket";
    }
  }
  const Regions regions(pool.base(), Geometry::of(pool.bytes()));
  if (const std::string wrong = first_finding(regions); !wrong.empty()) return wrong;
  uint64_t seen = 0;
  pool.for_each_flow(0, [&](const FlowRecord&) { return ++seen, true; });
  if (seen != flows_of(model)) return "for_each_flow saw " + std::to_string(seen);
  return "";
}

// "" if each block of the bucket's extent pages is in the free list or in the extent of one live
// record, once; otherwise what is wrong. `blocks`: of its pages.
inline std::string block_leak(Pool& pool, uint32_t bucket, uint64_t blocks) {
  const Regions regions(pool.base(), Geometry::of(pool.bytes()));
  std::set<uint32_t> seen;
  std::string wrong;
  const auto walk = [&](uint32_t block, const std::string& list) {
    for (; block != 0; block = regions.extent_head(block_page(block)).next[block_place(block)]) {
      if (!regions.is_page(block_page(block)) || block_place(block) >= kBlocksPerPage ||
          !seen.insert(block).second) {
        wrong = list + " leads to block " + std::to_string(block) + ", which is not its own";
        return;
      }
    }
  };
  walk(regions.bucket(0, bucket).free_block, "the free list");
  pool.for_each_flow(0, [&](const FlowRecord& record) {
    if (record.bucket == bucket && record.extent != 0) walk(record.extent, "an extent");
    return true;
  });
  if (wrong.empty() && seen.size() != blocks) wrong = "blocks are in no list";
  return wrong.empty() ? "" : "bucket " + std::to_string(bucket) + ": " + wrong;
}

// "" if each claimed page belongs to a bucket of chain 0 that knows of it; otherwise what is wrong.
inline std::string page_leak(Pool& pool) {
  const Regions regions(pool.base(), Geometry::of(pool.bytes()));
  struct Pages {
    uint32_t records = 0;
    uint32_t index = 0;
    uint32_t extents = 0;
  };
  std::map<uint32_t, Pages> claimed;
  for (uint64_t i = 0; i < regions.geometry().pages; ++i) {
    const auto tag = static_cast<uint32_t>(regions.page_table()[i]);
    if (tag == 0) continue;
    if (tag_chain(tag) != 0) return "page of another chain";
    Pages& pages = claimed[tag & 0xffff];
    const PageKind kind = tag_kind(tag);
    ++(kind == PageKind::kRecords   ? pages.records
       : kind == PageKind::kExtents ? pages.extents
                                    : pages.index);
  }
  for (uint32_t bucket = 0; bucket < kMaxBuckets; ++bucket) {
    const BucketHeader& header = regions.bucket(0, bucket);
    const Pages pages = claimed[bucket];
    if (pages.records != header.record_pages || pages.index != header.index_pages ||
        pages.extents != header.extent_pages) {
      return "bucket " + std::to_string(bucket) + " knows of " +
             std::to_string(header.record_pages) + " record, " +
             std::to_string(header.index_pages) + " index and " +
             std::to_string(header.extent_pages) + " extent pages, but claimed " +
             std::to_string(pages.records) + ", " + std::to_string(pages.index) + " and " +
             std::to_string(pages.extents);
    }
    if (pages.extents == 0) continue;
    const std::string leak = block_leak(pool, bucket, uint64_t{pages.extents} * kBlocksPerPage);
    if (!leak.empty()) return leak;
  }
  return "";
}

}  // namespace flowkeep
