// BucketSalvage: what can be kept of a bucket whose parts do not fit together. A flow is kept when
// its record is whole and the bucket's header or an index entry says that it was in use.
//
// In two steps, because pages that a salvage frees may hold what the next one wants: read every
// damaged bucket, then write each anew with take_out() and put_back().
//
// Thread rule: nobody else writes to the image.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "state/flow_table.h"
#include "state/layout.h"

namespace flowkeep {

// Hears of each flow that is given up: why, and its keys as far as they are legible.
using LostFlow = std::function<void(const std::string& why)>;

class BucketSalvage {
 public:
  BucketSalvage(const Regions& regions, uint32_t chain, uint32_t bucket, const LostFlow& lost);

  uint32_t chain() const { return chain_; }
  uint32_t bucket() const { return bucket_; }
  size_t flows() const { return kept_.size(); }

  // Forgets header and pages of the bucket.
  void take_out(Persistence& persistence) const;
  // Opens the kept flows again, by bursts of the table, which is of the bucket's chain. Returns how
  // many the pool had room for.
  size_t put_back(FlowTable& table, const LostFlow& lost) const;

 private:
  bool may_be_ours(uint32_t page, PageKind kind) const;
  void read_pages();
  void read_list();
  void read_index();
  // Entries whose tags begin otherwise are dead. Depth 0: all count.
  void read_segment(uint32_t page, uint32_t depth, uint32_t prefix);
  void add_record_page(uint32_t page);
  void judge_records(const LostFlow& lost);
  void judge(RecordId id, bool in_use, const LostFlow& lost);
  bool was_in_use(uint32_t page, uint32_t place, bool header_is_true) const;
  bool header_tells_the_truth() const;
  bool is_indexed(RecordId id, const FlowRecord& record) const;
  FlowTable::Opened reopen(FlowTable& table, const FlowRecord& kept) const;
  void give_up_missing(const LostFlow& lost) const;
  void give_up_twins(const LostFlow& lost);

  const Regions regions_;
  const uint32_t chain_;
  const uint32_t bucket_;
  std::vector<uint32_t> record_pages_;
  std::unordered_set<uint32_t> known_pages_;                  // the same, and segments
  std::unordered_map<RecordId, std::vector<uint32_t>> tags_;  // of index entries
  std::unordered_map<RecordId, uint32_t> live_entries_;       // those that are not dead
  std::unordered_set<RecordId> judged_;                       // kept, free, or given up by name
  struct Kept {
    FlowRecord record;
    std::vector<std::byte> extent;
  };
  std::vector<Kept> kept_;
};

}  // namespace flowkeep
