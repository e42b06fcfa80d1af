// Checks a pool of any content: superblock, chains, page table, each bucket's records, index and
// free list, leases, redo logs. Never writes, never leaves the image, ends for any input.
//
// A pool that a crash has left is between two bursts only when its redo logs have been applied:
// check_logs() looks at it as it was found, check_pool() as recovery leaves it.
//
// Thread rule: nobody writes to the pool meanwhile, or findings may be of bursts in progress.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "state/layout.h"
#include "state/pool_findings.h"

namespace flowkeep {

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

void check_superblocks(const Regions& regions, Findings& findings);
void check_logs(const Regions& regions, Findings& findings);
void check_chain_directory(const Regions& regions, Findings& findings);

struct PoolCounts {
  uint32_t chains = 0;
  uint64_t flows = 0;
  uint64_t records = 0;
  uint64_t pages_claimed = 0;
};
// Everything but superblocks, logs and chain directory.
PoolCounts check_pool(const Regions& regions, Findings& findings);

}  // namespace flowkeep
