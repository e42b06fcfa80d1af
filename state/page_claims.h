// PageClaims: how a burst takes free pages for its buckets. A claim is one compare-and-swap in the
// page table, shared by all workers. It is noted in the worker's log before it is made, so that
// recovery can give back what a burst claimed that never committed, without a scan of the page
// table.
//
// Thread rule: one for each FlowTable; any number of processes claim at once.
#pragma once

#include <cstdint>

#include "state/layout.h"
#include "state/persistence.h"

namespace flowkeep {

class PageClaims {
 public:
  PageClaims(const Regions& regions, Persistence& persistence)
      : regions_(regions), persistence_(persistence) {}

  void use_log(uint32_t log) { log_ = log; }

  // A page for the burst that will commit as `sequence`, or 0 when none is free. Its content is
  // whatever it was. Claim and note are flushed; the claim is durable after the next fence.
  uint32_t claim(uint32_t tag, uint32_t next_page, uint64_t sequence);
  // Further claims that this burst may make.
  uint32_t room() const { return kPendingClaims - claimed_; }
  bool any() const { return claimed_ != 0; }
  void burst_ended() { claimed_ = 0; }

 private:
  void note(uint32_t page, uint32_t tag, uint64_t sequence);

  const Regions regions_;
  Persistence& persistence_;
  uint32_t log_ = 0;
  uint32_t claimed_ = 0;  // by this burst
  bool found_full_ = false;
  uint64_t releases_when_full_ = 0;
};

// Gives back the pages that bursts after `newest_sequence` of the log claimed. Killed halfway, it
// can be run again: a page is freed only while it carries the tag of a bucket that the log's worker
// owned.
uint32_t give_back_claims(const Regions& regions, uint32_t log, uint64_t newest_sequence,
                          Persistence& persistence);

}  // namespace flowkeep
