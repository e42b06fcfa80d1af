#include "state/bucket_salvage.h"

#include <algorithm>
#include <functional>
#include <set>

#include "state/extent_reader.h"
#include "state/flow_text.h"
#include "state/index_keys.h"
#include "state/persistence.h"
#include "state/pool_check.h"
#include "state/record_checksum.h"

namespace flowkeep {

namespace {

std::string flow_name(RecordId id, const FlowRecord& record) {
  return "record " + std::to_string(id) + ": " + inside_text(record) + ", outside " +
         outside_text(record);
}

}  // namespace

BucketSalvage::BucketSalvage(const Regions& regions, uint32_t chain, uint32_t bucket,
                             const LostFlow& lost)
    : regions_(regions), chain_(chain), bucket_(bucket) {
  read_index();
  read_pages();
  read_list();
  judge_records(lost);
  give_up_missing(lost);
  give_up_twins(lost);
}

// Claimed by this bucket, or by none that there is: a page table word may be what was damaged.
bool BucketSalvage::may_be_ours(uint32_t page, PageKind kind) const {
  if (!regions_.is_page(page)) return false;
  const uint64_t word = regions_.page_word(page);
  return static_cast<uint32_t>(word) == page_tag(kind, chain_, bucket_) ||
         !is_claim(regions_, word);
}

void BucketSalvage::add_record_page(uint32_t page) {
  if (known_pages_.insert(page).second) record_pages_.push_back(page);
}

void BucketSalvage::read_index() {
  const BucketHeader& header = regions_.bucket(chain_, bucket_);
  if (header.depth == 0) {
    if (may_be_ours(header.root_page, PageKind::kSegment)) read_segment(header.root_page, 0, 0);
    return;
  }
  if (header.depth > kMaxDepth || !may_be_ours(header.root_page, PageKind::kDirectory)) return;
  const auto* words = reinterpret_cast<const uint32_t*>(regions_.page(header.root_page)) +
                      directory_start(header.depth);
  for (uint32_t i = 0; i < 1u << header.depth; ++i) {
    const auto entry = DirectoryEntry::unpack(words[i]);
    if (entry.depth > header.depth || !may_be_ours(entry.page, PageKind::kSegment)) continue;
    read_segment(entry.page, entry.depth, i >> (header.depth - entry.depth));
  }
}

void BucketSalvage::read_segment(uint32_t page, uint32_t depth, uint32_t prefix) {
  if (!known_pages_.insert(page).second) return;
  const auto* entries = reinterpret_cast<const uint64_t*>(regions_.page(page));
  for (uint32_t i = 0; i < kSegmentGroups * kGroupEntries; ++i) {
    const auto id = static_cast<RecordId>(entries[i]);
    const auto tag = static_cast<uint32_t>(entries[i] >> 32);
    if (entries[i] == 0) continue;
    tags_[id].push_back(tag);
    if (depth == 0 || tag >> (32 - depth) == prefix) ++live_entries_[id];
  }
}

// By the page table: segments that the directory has lost, and record pages.
void BucketSalvage::read_pages() {
  for (uint64_t i = 0; i < regions_.geometry().pages; ++i) {
    const auto tag = static_cast<uint32_t>(regions_.page_table()[i]);
    const auto page = static_cast<uint32_t>(regions_.first_page() + i);
    if (tag == page_tag(PageKind::kRecords, chain_, bucket_)) add_record_page(page);
    if (tag == page_tag(PageKind::kSegment, chain_, bucket_)) read_segment(page, 0, 0);
  }
}

// Record pages that the page table has lost: by the list, and by the index.
void BucketSalvage::read_list() {
  uint32_t page = regions_.bucket(chain_, bucket_).record_page;
  for (uint64_t i = 0; i < regions_.geometry().pages; ++i) {
    if (!may_be_ours(page, PageKind::kRecords)) break;
    add_record_page(page);
    page = static_cast<uint32_t>(regions_.page_word(page) >> 32);
  }
  for (const auto& [id, tags] : tags_) {
    if (record_place(id) >= kRecordsPerPage) continue;
    if (!may_be_ours(record_page(id), PageKind::kRecords)) continue;
    if (is_indexed(id, regions_.record(id))) add_record_page(record_page(id));
  }
}

bool BucketSalvage::is_indexed(RecordId id, const FlowRecord& record) const {
  const auto found = tags_.find(id);
  if (found == tags_.end()) return false;
  const HashSecret secret = regions_.superblock().secret;
  const IndexKeys keys = index_keys(record);
  return std::ranges::any_of(found->second, [&](uint32_t tag) {
    return std::ranges::any_of(
        keys, [&](const FlowKey& key) { return tag == hash_tag(hash_key(key, secret)); });
  });
}

// Does the header count as many flows as there are where it says that records are in use? Then they
// need no index entry to be believed.
bool BucketSalvage::header_tells_the_truth() const {
  const BucketHeader& header = regions_.bucket(chain_, bucket_);
  if (header.records_used > kRecordsPerPage) return false;
  if (std::ranges::find(record_pages_, header.record_page) == record_pages_.end()) {
    return header.record_page == 0 && record_pages_.empty();
  }
  uint64_t live = 0, keyed = 0;
  for (const uint32_t page : record_pages_) {
    const uint32_t used = page == header.record_page ? header.records_used : kRecordsPerPage;
    for (uint32_t i = 0; i < used; ++i) {
      const FlowRecord& record = regions_.record(record_id(page, i));
      live += is_flow(record) ? 1 : 0;
      keyed += record.phase == FlowPhase::kKeyed ? 1 : 0;
    }
  }
  return live == header.flows && keyed == header.keyed;
}

bool BucketSalvage::was_in_use(uint32_t page, uint32_t place, bool header_is_true) const {
  const BucketHeader& header = regions_.bucket(chain_, bucket_);
  const RecordId id = record_id(page, place);
  if (is_indexed(id, regions_.record(id))) return true;
  const bool is_newest = page == header.record_page;
  return header_is_true && (!is_newest || place < header.records_used);
}

void BucketSalvage::judge_records(const LostFlow& lost) {
  const bool header_is_true = header_tells_the_truth();
  for (const uint32_t page : record_pages_) {
    for (uint32_t place = 0; place < kRecordsPerPage; ++place) {
      judge(record_id(page, place), was_in_use(page, place, header_is_true), lost);
    }
  }
}

void BucketSalvage::judge(RecordId id, bool in_use, const LostFlow& lost) {
  const FlowRecord& record = regions_.record(id);
  const bool whole = record.checksum == record_checksum(id, record);
  if (record.phase == FlowPhase::kFree) {
    if (whole) judged_.insert(id);
    // A flow if the index says so: then its phase is what was damaged.
    if (whole || !is_indexed(id, record)) return;
  } else if (!in_use) {
    return;  // never used, or nothing says that it was
  }
  judged_.insert(id);
  const IndexKeys keys = index_keys(record);
  const bool fits = whole && record.phase <= FlowPhase::kKeyed && record.bucket == bucket_ &&
                    keys.keys[0].side == Side::kInside &&
                    (keys.count == 1 || keys.keys[1].side == Side::kOutside) &&
                    (!record.is_wide() || has_its_folds(record, regions_.superblock().secret));
  // An endpoint without a flow of its own is known again when its other flows are put back.
  if (fits && record.phase == FlowPhase::kKeyed && record.users != 0) return;
  const auto extent =
      record.extent == 0 ? std::vector<std::byte>{} : whole_extent(regions_, id, record.extent);
  if (fits && extent) {
    kept_.push_back({record, *extent});
  } else {
    lost((fits ? "damaged extent of " : "damaged ") + flow_name(id, record));
  }
}

// Two entries of the index name each flow, also one whose record or page cannot be found any more.
void BucketSalvage::give_up_missing(const LostFlow& lost) const {
  for (const auto& [id, entries] : live_entries_) {
    if (entries < 2 || judged_.contains(id)) continue;
    lost("record " + std::to_string(id) +
         ", which the index names, is not whole: keys not legible");
  }
}

// Of two flows with a key in common the one that was opened later is kept.
void BucketSalvage::give_up_twins(const LostFlow& lost) {
  // Pointers, because stable_sort's buffer is not aligned as a FlowRecord must be.
  std::vector<Kept*> newest_first;
  for (Kept& kept : kept_) newest_first.push_back(&kept);
  std::ranges::stable_sort(newest_first, std::greater(), [](const Kept* kept) {
    return std::pair(kept->record.opened_s, kept->record.last_seen_s);
  });
  const auto bytes_of = [](const FlowRecord& record, const FlowKey& key) {
    std::string bytes(reinterpret_cast<const char*>(&key), sizeof(key));
    if (record.is_wide()) {
      bytes.append(reinterpret_cast<const char*>(&record.addresses), sizeof(record.addresses));
    }
    return bytes;
  };
  std::set<std::string> keys;
  std::vector<Kept> single;
  for (Kept* kept : newest_first) {
    const FlowRecord& record = kept->record;
    const IndexKeys own = index_keys(record);
    if (std::ranges::any_of(
            own, [&](const FlowKey& key) { return keys.contains(bytes_of(record, key)); })) {
      lost("a second flow with a key of another: " + inside_text(record) + ", outside " +
           outside_text(record));
      continue;
    }
    for (const FlowKey& key : own) keys.insert(bytes_of(record, key));
    single.push_back(std::move(*kept));
  }
  kept_ = std::move(single);
}

void BucketSalvage::take_out(Persistence& persistence) const {
  persistence.zero(&regions_.bucket(chain_, bucket_), sizeof(BucketHeader));
  for (uint64_t i = 0; i < regions_.geometry().pages; ++i) {
    uint64_t& word = regions_.page_table()[i];
    const auto tag = static_cast<uint32_t>(word);
    if (tag >> 31 != 0 && tag_chain(tag) == chain_ && tag_bucket(tag) == bucket_) {
      persistence.store64(&word, 0);
    }
  }
}

FlowTable::Opened BucketSalvage::reopen(FlowTable& table, const FlowRecord& kept) const {
  if (kept.phase == FlowPhase::kKeyed) {
    const bool has_second = index_keys(kept).count == 2;
    return table.open_keyed(bucket_, kept.inside_key, has_second ? &kept.outside_key : nullptr);
  }
  return kept.users == 0
             ? table.open(bucket_, kept.inside_key, kept.outside_key,
                          kept.is_wide() ? &kept.addresses : nullptr)
             : table.open_mapped(bucket_, kept.inside_key, kept.outside_key, mapping_marks(kept));
}

size_t BucketSalvage::put_back(FlowTable& table, const LostFlow& lost) const {
  size_t put_back = 0;
  for (const auto& [kept, extent] : kept_) {
    const auto opened = reopen(table, kept);
    if (opened.status != OpenStatus::kOk) {
      lost("no room for " + inside_text(kept));
      continue;
    }
    FlowRecord& record = table.stage(opened.id);
    record.phase = kept.phase;
    record.initiator = kept.initiator;
    record.revision = kept.revision;
    record.opened_s = kept.opened_s;
    record.last_seen_s = kept.last_seen_s;
    std::memcpy(record.hard, kept.hard, sizeof(record.hard));
    table.store_soft(opened.id, 0, kept.soft);
    const OpenStatus status = table.set_extent(opened.id, extent);
    if (status == OpenStatus::kOk) {
      put_back += is_flow(kept) ? 1 : 0;
    } else {
      lost("no room for the extent of " + inside_text(kept));
      table.close(opened.id);
    }
    table.commit({});
    table.apply();
  }
  return put_back;
}

}  // namespace flowkeep
