// Checks a pool of any content: superblock, chains, page table, each bucket's records, index and
// free list, leases, redo logs. Never writes, never leaves the image, ends for any input.
//
// A pool that a crash has left is between two bursts only when its redo logs have been applied:
// check_logs() looks at it as it was found, check_pool() as recovery leaves it.
//
// Thread rule: nobody writes to the pool meanwhile, or findings may be of bursts in progress.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "state/layout.h"
#include "state/pool_findings.h"

namespace flowkeep {

// A text of the pool that may hold anything, up to its first zero.
std::string printable(const char* text, size_t bytes);
// "chain \"edge\"", or its number where the name is not legible.
std::string chain_label(const Regions& regions, uint32_t chain);
std::string bucket_label(const Regions& regions, uint32_t chain, uint32_t bucket);

uint64_t chain_entry_checksum(const ChainEntry& entry, HashSecret secret);
// Is this entry one that attach_chain() could have written, in any of the states?
bool is_sound_entry(const Regions& regions, uint32_t chain);

// Pages that something was found to lead to.
class ReachedPages {
 public:
  explicit ReachedPages(const Regions& regions)
      : regions_(regions), reached_(regions.geometry().pages) {}
  // False if it was reached before.
  bool reach(uint32_t page);
  bool contains(uint32_t page) const { return reached_[page - regions_.first_page()]; }

 private:
  const Regions regions_;
  std::vector<bool> reached_;
};

struct BucketCounts {
  uint64_t flows = 0;    // live records
  uint64_t records = 0;  // used, free ones too
};

// state/bucket_check.cc
BucketCounts check_bucket(const Regions& regions, uint32_t chain, uint32_t bucket,
                          ReachedPages& reached, Findings& findings);

// Do the keys of an IPv6 flow stand for its addresses?
bool has_its_folds(const FlowRecord& flow, HashSecret secret);

// Calls `visit(bucket, id, record)` for each live record of the chain that its bucket's header
// leads to, damaged ones too.
template <typename Visit>
void for_each_live_record(const Regions& regions, uint32_t chain, Visit&& visit);

void check_superblocks(const Regions& regions, Findings& findings);
void check_log(const Regions& regions, uint32_t log, Findings& findings);
void check_logs(const Regions& regions, Findings& findings);  // all of them
void check_chain_directory(const Regions& regions, Findings& findings);

struct PoolCounts {
  uint32_t chains = 0;
  uint64_t flows = 0;
  uint64_t records = 0;
  uint64_t pages_claimed = 0;
};
// Everything but superblocks, logs and chain directory.
// Leases, as far as they follow from keys: block of the flow's external port; is the flow one that
// needs it leased by its bucket; index of an external address at which it is.
bool leases_anything(const Regions& regions, uint32_t chain);  // otherwise it steers without leases
uint32_t port_block_of(const FlowRecord& flow);
bool needs_lease(const FlowRecord& flow);
std::optional<uint32_t> lease_of(const Regions& regions, uint32_t chain, uint32_t bucket,
                                 const FlowRecord& flow);

// Is this page table word a claim by a bucket that there is?
bool is_claim(const Regions& regions, uint64_t word);
// Pages that are claimed though nothing leads to them, and nothing should: calls `visit(page)`.
template <typename Visit>
void for_each_leaked_page(const Regions& regions, const ReachedPages& reached, Visit&& visit);
PoolCounts check_pool(const Regions& regions, Findings& findings);

template <typename Visit>
void for_each_leaked_page(const Regions& regions, const ReachedPages& reached, Visit&& visit) {
  // A directory of the greatest depth has left its last page behind: one for each such bucket.
  std::set<uint32_t> left_behind;
  for (uint64_t i = 0; i < regions.geometry().pages; ++i) {
    const auto page = static_cast<uint32_t>(regions.first_page() + i);
    const uint64_t word = regions.page_table()[i];
    if (word == 0 || reached.contains(page)) continue;
    const auto tag = static_cast<uint32_t>(word);
    const bool is_left_behind =
        is_claim(regions, word) && tag_kind(tag) == PageKind::kDirectory &&
        regions.bucket(tag_chain(tag), tag_bucket(tag)).depth == kMaxDepth &&
        left_behind.insert(tag).second;
    if (!is_left_behind) visit(page);
  }
}

template <typename Visit>
void for_each_live_record(const Regions& regions, uint32_t chain, Visit&& visit) {
  for (uint32_t bucket = 0; bucket < regions.chain(chain).buckets; ++bucket) {
    uint32_t page = regions.bucket(chain, bucket).record_page;
    uint32_t used = std::min(regions.bucket(chain, bucket).records_used, kRecordsPerPage);
    for (uint64_t pages = 0; pages < regions.geometry().pages && regions.is_page(page); ++pages) {
      for (uint32_t id = record_id(page, 0); id < record_id(page, used); ++id) {
        const FlowRecord& record = regions.record(id);
        if (record.phase != FlowPhase::kFree) visit(bucket, id, record);
      }
      page = static_cast<uint32_t>(regions.page_word(page) >> 32);
      used = kRecordsPerPage;
    }
  }
}

}  // namespace flowkeep
