// Everything about one bucket: its pages, and that records, index and free list say the same.
#include <algorithm>
#include <array>
#include <cstring>
#include <unordered_map>

#include "state/extent_reader.h"
#include "state/flow_table.h"
#include "state/flow_text.h"
#include "state/index_keys.h"
#include "state/pool_check.h"
#include "state/record_checksum.h"

namespace flowkeep {

namespace {

std::string number(uint64_t value) {
  return std::to_string(value);
}

class BucketCheck {
 public:
  BucketCheck(const Regions& regions, uint32_t chain, uint32_t bucket, ReachedPages& reached,
              Findings& findings)
      : regions_(regions),
        chain_(chain),
        bucket_(bucket),
        header_(regions.bucket(chain, bucket)),
        reached_(reached),
        findings_(findings) {}

  BucketCounts run() {
    walk_record_pages();
    records_.resize(record_pages_.size() * kRecordsPerPage);
    walk_free_list();
    walk_index();
    walk_extent_pages();
    check_records();
    walk_free_blocks();
    check_twins();
    check_users();
    check_counts();
    return {flows_, used_records_};
  }

 private:
  // What was found to lead to a record.
  struct Record {
    bool on_free_list = false;
    uint8_t by_key[2] = {};  // index entries of its first and second key
  };

  void add(Severity severity, const std::string& where, std::string what, std::string found,
           std::string expected) {
    std::string place = bucket_label(regions_, chain_, bucket_);
    if (!where.empty()) place += " " + where;
    findings_.add(severity, std::move(place), std::move(what), std::move(found),
                  std::move(expected));
  }
  void damage(const std::string& where, std::string what, std::string found, std::string expected) {
    add(Severity::kDamage, where, std::move(what), std::move(found), std::move(expected));
  }

  // Is this a page of the bucket that nothing led to before?
  bool enter_page(uint32_t page, PageKind kind, const std::string& from) {
    if (!regions_.is_page(page)) {
      damage("", from, "page " + number(page),
             "a page from " + number(regions_.first_page()) + " to " +
                 number(regions_.first_page() + regions_.geometry().pages - 1));
      return false;
    }
    const auto tag = static_cast<uint32_t>(regions_.page_word(page));
    const uint32_t expected = page_tag(kind, chain_, bucket_);
    if (tag != expected) {
      damage("page " + number(page), "page table word", number(tag),
             number(expected) + ": " + from + " leads to it");
      return false;
    }
    if (reached_.reach(page)) return true;
    damage("", from, "page " + number(page), "a page that nothing else leads to");
    return false;
  }

  void walk_record_pages() {
    uint32_t page = header_.record_page;
    std::string from = "header's record page";
    while (page != 0 && enter_page(page, PageKind::kRecords, from)) {
      place_of_.emplace(page, record_pages_.size());
      record_pages_.push_back(page);
      from = "record page " + number(page) + "'s link";
      page = static_cast<uint32_t>(regions_.page_word(page) >> 32);
    }
    if (header_.records_used > kRecordsPerPage) {
      damage("", "records used of the newest page", number(header_.records_used),
             "at most " + number(kRecordsPerPage));
    }
  }

  uint32_t used_of(size_t place) const {
    return place == 0 ? std::min(header_.records_used, kRecordsPerPage) : kRecordsPerPage;
  }
  // Null: no used record of the bucket.
  Record* record(RecordId id) {
    const auto place = place_of_.find(record_page(id));
    if (place == place_of_.end() || record_place(id) >= used_of(place->second)) return nullptr;
    return &records_[place->second * kRecordsPerPage + record_place(id)];
  }

  void walk_free_list() {
    std::string from = "header's free record";
    for (RecordId id = header_.free_record; id != 0; id = regions_.record(id).next_free) {
      Record* const found = record(id);
      if (found == nullptr || found->on_free_list) {
        damage("", from, "record " + number(id),
               found == nullptr ? "a used record of the bucket"
                                : "a record that is not on the list yet");
        return;
      }
      found->on_free_list = true;
      from = "record " + number(id) + "'s next free";
    }
  }

  void walk_index() {
    if (header_.root_page == 0) {
      if (header_.depth != 0) damage("", "depth without an index", number(header_.depth), "0");
      return;
    }
    if (header_.depth > kMaxDepth) {
      damage("", "depth", number(header_.depth), "at most " + number(kMaxDepth));
      return;
    }
    if (header_.depth == 0) return walk_segment(header_.root_page, 0, 0, "header's root page");
    if (!enter_page(header_.root_page, PageKind::kDirectory, "header's root page")) return;
    ++index_pages_;
    walk_directory();
  }

  void walk_directory() {
    const auto* words = reinterpret_cast<const uint32_t*>(regions_.page(header_.root_page)) +
                        directory_start(header_.depth);
    const uint32_t end = 1u << header_.depth;
    for (uint32_t i = 0; i < end;) {
      const auto entry = DirectoryEntry::unpack(words[i]);
      const std::string where = "directory word " + number(i);
      if (entry.depth > header_.depth || i % (1u << (header_.depth - entry.depth)) != 0) {
        damage(where, "depth", number(entry.depth), "that of a segment which begins here");
        ++i;
        continue;
      }
      const uint32_t span = 1u << (header_.depth - entry.depth);
      for (uint32_t other = i + 1; other < i + span; ++other) {
        if (words[other] == words[i]) continue;
        damage("directory word " + number(other), "segment", number(words[other]),
               number(words[i]) + ", as in word " + number(i));
      }
      walk_segment(entry.page, entry.depth, i / span, where);
      i += span;
    }
  }

  void walk_segment(uint32_t page, uint32_t depth, uint32_t prefix, const std::string& from) {
    if (!enter_page(page, PageKind::kSegment, from)) return;
    ++index_pages_;
    const auto* entries = reinterpret_cast<const uint64_t*>(regions_.page(page));
    for (uint32_t i = 0; i < kSegmentGroups * kGroupEntries; ++i) {
      const auto tag = static_cast<uint32_t>(entries[i] >> 32);
      if (entries[i] == 0) continue;
      if (depth != 0 && tag >> (32 - depth) != prefix) continue;  // left behind by a split
      check_entry(static_cast<RecordId>(entries[i]), tag, i / kGroupEntries,
                  "page " + number(page) + " entry " + number(i));
    }
  }

  // ---- Extents.

  void walk_extent_pages() {
    uint32_t page = header_.extent_page;
    std::string from = "header's extent page";
    while (page != 0 && enter_page(page, PageKind::kExtents, from)) {
      extent_place_.emplace(page, extent_place_.size());
      from = "extent page " + number(page) + "'s link";
      page = static_cast<uint32_t>(regions_.page_word(page) >> 32);
    }
    block_seen_.resize(extent_place_.size() * kBlocksPerPage);
  }

  // Follows a list of blocks, all of which must be the bucket's and in no list yet. Returns how
  // many there are.
  uint64_t walk_blocks(uint32_t block, const std::string& where, std::string from) {
    uint64_t blocks = 0;
    for (; block != 0; block = regions_.extent_head(block_page(block)).next[block_place(block)]) {
      const auto place = extent_place_.find(block_page(block));
      const bool is_ours = place != extent_place_.end() && block_place(block) < kBlocksPerPage;
      const size_t index = is_ours ? place->second * kBlocksPerPage + block_place(block) : 0;
      if (!is_ours || block_seen_[index]) {
        damage(where, from, "block " + number(block),
               is_ours ? "a block that is in no list yet" : "a block of the bucket's extent pages");
        return blocks;
      }
      block_seen_[index] = true;
      ++blocks;
      from = "block " + number(block) + "'s next";
    }
    return blocks;
  }

  void walk_free_blocks() {
    walk_blocks(header_.free_block, "", "header's free block");
    const auto unseen = std::ranges::count(block_seen_, false);
    if (unseen != 0) {
      add(Severity::kWaste, "", "extent blocks in no list", number(static_cast<uint64_t>(unseen)),
          "0");
    }
  }

  void check_extent(const std::string& where, RecordId id, const FlowRecord& flow) {
    if (flow.extent == 0) return;
    const uint64_t blocks = walk_blocks(flow.extent, where, "extent");
    const auto content = whole_extent(regions_, id, flow.extent);
    if (!content) {
      damage(where, "extent", "block " + number(flow.extent), "a content that passes its checksum");
    } else if (blocks != extent_blocks(content->size())) {
      damage(where, "blocks of the extent", number(blocks), number(extent_blocks(content->size())));
    }
  }

  void check_entry(RecordId id, uint32_t tag, uint32_t group, const std::string& where) {
    Record* const found = record(id);
    if (found == nullptr || regions_.record(id).phase == FlowPhase::kFree) {
      return damage(where, "index entry", "record " + number(id),
                    found == nullptr ? "a used record of the bucket" : "a live record");
    }
    if (group != first_group(tag) && group != second_group(tag)) {
      return damage(where, "index entry of record " + number(id), "group " + number(group),
                    "group " + number(first_group(tag)) + " or " + number(second_group(tag)));
    }
    const FlowRecord& flow = regions_.record(id);
    const HashSecret secret = regions_.superblock().secret;
    const IndexKeys keys = index_keys(flow);
    bool is_its = false;
    for (uint32_t i = 0; i < keys.count; ++i) {
      if (tag != hash_tag(hash_key(keys.keys[i], secret))) continue;
      is_its = true;
      if (found->by_key[i] != UINT8_MAX) ++found->by_key[i];
    }
    if (is_its) return;
    damage(where, "index entry of record " + number(id), "tag " + number(tag),
           "the hash of " + key_text(keys.keys[0]) + " or " + key_text(keys.keys[1]));
  }

  void check_records() {
    for (size_t place = 0; place < record_pages_.size(); ++place) {
      for (uint32_t i = 0; i < used_of(place); ++i) {
        ++used_records_;
        const RecordId id = record_id(record_pages_[place], i);
        const FlowRecord& flow = regions_.record(id);
        const Record& found = records_[place * kRecordsPerPage + i];
        const bool live = flow.phase != FlowPhase::kFree;
        check_record(id, flow, live);
        live ? check_live(id, flow, found) : check_free(id, found);
      }
    }
  }

  void check_record(RecordId id, const FlowRecord& flow, bool live) {
    const std::string where = "record " + number(id);
    const uint32_t checksum = record_checksum(id, flow);
    if (flow.checksum != checksum) {
      add(live ? Severity::kDamage : Severity::kWaste, where, "checksum", number(flow.checksum),
          number(checksum) + (live ? ", if it is " + inside_text(flow) : ""));
    }
    if (flow.version % 2 != 0) {
      add(Severity::kWaste, where, "version", number(flow.version),
          "even: it is not being changed");
    }
  }

  void check_free(RecordId id, const Record& found) {
    if (found.on_free_list) return;
    add(Severity::kWaste, "record " + number(id), "free record", "on no list", "on the free list");
  }

  void check_live(RecordId id, const FlowRecord& flow, const Record& found) {
    ++(is_flow(flow) ? flows_ : keyed_);
    const std::string where = "record " + number(id) + " (" + inside_text(flow) + ")";
    if (flow.phase > FlowPhase::kKeyed) {
      damage(where, "phase", number(static_cast<uint64_t>(flow.phase)), "0 to 6");
    }
    if (flow.bucket != bucket_) damage(where, "bucket", number(flow.bucket), number(bucket_));
    const IndexKeys keys = index_keys(flow);
    for (uint32_t i = 0; i < keys.count; ++i) {
      const auto side = i == 0 ? Side::kInside : Side::kOutside;
      if (keys.keys[i].side == side) continue;
      damage(where, "side of key " + number(i), number(static_cast<uint64_t>(keys.keys[i].side)),
             number(i));
    }
    check_family(where, flow);
    if (found.on_free_list) damage(where, "live record", "on the free list", "not on it");
    // Two keys of one tag: two entries that stand for either.
    const HashSecret secret = regions_.superblock().secret;
    const uint64_t hashes[] = {hash_key(keys.keys[0], secret), hash_key(keys.keys[1], secret)};
    const bool same_tag = keys.count == 2 && hash_tag(hashes[0]) == hash_tag(hashes[1]);
    const uint32_t each = same_tag ? 2 : 1;
    for (uint32_t i = 0; i < keys.count; ++i) {
      const char* side = i == 0 ? "inside" : "outside";
      if (found.by_key[i] != each) {
        damage(where, std::string("index entries of the ") + side + " key", number(found.by_key[i]),
               number(each));
      }
      (i == 0 ? inside_ : outside_).push_back({hash_of(flow, keys.keys[i], secret), id});
    }
    check_extent(where, id, flow);
    if (is_host(flow)) hosts_.push_back(id);
    if (is_guest(flow)) ++guests_[hash_key(endpoint_key(flow.inside_key), secret)];
  }

  void check_family(const std::string& where, const FlowRecord& flow) {
    if (!is_flow(flow)) return;
    const Family family = flow.inside_key.family;
    if (flow.outside_key.family != family || (family != Family::kIpv4 && family != Family::kIpv6)) {
      damage(where, "families of the keys",
             number(static_cast<uint64_t>(family)) + " and " +
                 number(static_cast<uint64_t>(flow.outside_key.family)),
             "0 for both (IPv4), or 6 for both (IPv6)");
    } else if (flow.is_wide() && !has_its_folds(flow, regions_.superblock().secret)) {
      damage(where, "addresses in the keys",
             number(flow.inside_key.src.raw) + " and " + number(flow.inside_key.dst.raw),
             "the folds of the record's IPv6 addresses, reversed in the outside key");
    }
  }

  // Of the same side's index key: is it the same flow's?
  static bool same_key(const FlowRecord& one, const FlowRecord& other, bool inside) {
    const size_t which = inside ? 0 : 1;
    const bool same_keys = index_keys(one).keys[which] == index_keys(other).keys[which];
    return same_keys && (!one.is_wide() || one.addresses == other.addresses);
  }

  // Of what tells flows apart on one side; the index goes by the key alone.
  static uint64_t hash_of(const FlowRecord& flow, const FlowKey& key, HashSecret secret) {
    uint64_t hash = hash_key(key, secret);
    if (!flow.is_wide()) return hash;
    uint64_t words[sizeof(WideAddresses) / sizeof(uint64_t)];
    std::memcpy(words, &flow.addresses, sizeof(words));
    for (const uint64_t word : words) hash = hash_words(hash, word, secret);
    return hash;
  }

  void check_twins() {
    for (auto* keys : {&inside_, &outside_}) {
      std::ranges::sort(*keys);
      for (size_t i = 1; i < keys->size(); ++i) {
        if ((*keys)[i].first != (*keys)[i - 1].first) continue;
        const RecordId one = (*keys)[i - 1].second, other = (*keys)[i].second;
        const bool inside = keys == &inside_;
        const FlowRecord& flow = regions_.record(other);
        if (!same_key(regions_.record(one), flow, inside)) continue;
        damage("record " + number(other), inside ? "inside key" : "outside key",
               inside ? inside_text(flow) : outside_text(flow),
               "a key of its own: record " + number(one) + " has it too");
      }
    }
  }

  // Each guest has a host, which counts it.
  void check_users() {
    const HashSecret secret = regions_.superblock().secret;
    for (const RecordId id : hosts_) {
      const FlowRecord& host = regions_.record(id);
      const auto of_host = guests_.find(hash_key(endpoint_key(host.inside_key), secret));
      const uint64_t own = is_flow(host) ? 1 : 0;
      const uint64_t users = own + (of_host == guests_.end() ? 0 : of_host->second);
      if (of_host != guests_.end()) guests_.erase(of_host);
      if (user_count(host) == users) continue;
      damage("record " + number(id) + " (" + key_text(host.inside_key) + ")",
             "flows of its endpoint", number(user_count(host)), number(users));
    }
    for (const auto& [hash, flows] : guests_) {
      damage("", "mapped flows of an endpoint without its mapping", number(flows), "0");
    }
  }

  void check_counts() {
    // A directory of the greatest depth has left its last page behind.
    const uint32_t left_behind = header_.depth == kMaxDepth ? 1 : 0;
    check_count("flows", header_.flows, flows_);
    check_count("records that are no flows", header_.keyed, keyed_);
    check_count("record pages", header_.record_pages, record_pages_.size());
    check_count("extent pages", header_.extent_pages, extent_place_.size());
    check_count("index pages", header_.index_pages, index_pages_ + left_behind);
  }
  void check_count(const char* what, uint32_t found, uint64_t counted) {
    if (found == counted) return;
    add(Severity::kWaste, "", what, number(found), number(counted) + ", as many as there are");
  }

  const Regions regions_;
  const uint32_t chain_;
  const uint32_t bucket_;
  const BucketHeader header_;  // a copy: the image may be a running pool
  ReachedPages& reached_;
  Findings& findings_;
  std::vector<uint32_t> record_pages_;                 // newest first
  std::unordered_map<uint32_t, size_t> place_of_;      // page: index into record_pages_
  std::vector<Record> records_;                        // of the record pages, in their order
  std::unordered_map<uint32_t, size_t> extent_place_;  // extent page: its number among them
  std::vector<bool> block_seen_;                       // of the extent pages
  std::vector<std::pair<uint64_t, RecordId>> inside_, outside_;  // hashes of live records' keys
  std::vector<RecordId> hosts_;
  std::unordered_map<uint64_t, uint64_t> guests_;  // hash of the endpoint's key: how many
  uint64_t flows_ = 0;
  uint64_t keyed_ = 0;
  uint64_t used_records_ = 0;
  uint32_t index_pages_ = 0;
};

}  // namespace

BucketCounts check_bucket(const Regions& regions, uint32_t chain, uint32_t bucket,
                          ReachedPages& reached, Findings& findings) {
  return BucketCheck(regions, chain, bucket, reached, findings).run();
}

}  // namespace flowkeep
