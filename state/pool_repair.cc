#include "state/pool_repair.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <map>
#include <optional>
#include <set>

#include "state/bucket_salvage.h"
#include "state/checksum.h"
#include "state/flow_text.h"
#include "state/index_keys.h"
#include "state/layout_table.h"
#include "state/pool_check.h"
#include "state/record_checksum.h"
#include "state/redo_record.h"
#include "state/superblock.h"

namespace flowkeep {

namespace {

std::string name_of(const ChainEntry& entry) {
  return {entry.name, strnlen(entry.name, sizeof(entry.name))};
}

class Repair {
 public:
  explicit Repair(PoolImage& image)
      : image_(image), regions_(image.regions()), pool_(Pool::over(image.base(), image.bytes())) {}

  RepairReport run() {
    mend_size();
    mend_superblock();
    mend_logs();
    complete_bursts();
    mend_chains();
    finish_dropped_chains();
    mend_buckets();
    mend_leases();
    mend_layouts();
    free_leaked_pages();
    verify();
    return std::move(report_);
  }

 private:
  void did(const std::string& where, const std::string& what) {
    report_.steps.push_back({RepairKind::kMended, where, what});
  }
  void gave_up(const std::string& where, const std::string& what) {
    report_.steps.push_back({RepairKind::kLost, where, what});
  }
  void gave_up_flow(const std::string& where, const std::string& what) {
    gave_up(where, "flow given up: " + what);
    ++report_.flows_given_up;
  }

  void mend_size() {
    if (image_.file_bytes() == image_.bytes()) return;
    const std::string sizes =
        std::to_string(image_.file_bytes()) + " bytes instead of " + std::to_string(image_.bytes());
    image_.file_bytes() < image_.bytes()
        ? gave_up("file", sizes + ": what was behind is gone, zero takes its place")
        : gave_up("file", sizes + ": what is behind the pool is cut off");
  }

  // ---- Superblock.

  void mend_superblock() {
    auto* const first = reinterpret_cast<Superblock*>(image_.base());
    auto* const copy = reinterpret_cast<Superblock*>(image_.base() + kSuperblockCopyAt);
    if (const auto whole = whole_superblock(image_.base(), image_.bytes())) {
      if (std::memcmp(first, &*whole, sizeof(*whole)) != 0) {
        *first = *whole;
        did("superblock", "taken from its copy");
      }
      if (std::memcmp(copy, &*whole, sizeof(*whole)) != 0) {
        *copy = *whole;
        did("superblock's copy", "made again");
      }
      return;
    }
    std::optional<HashSecret> secret;
    for (const HashSecret candidate : {first->secret, copy->secret}) {
      if (!secret && fits(candidate)) secret = candidate;
    }
    const uint64_t created_s = secret ? first->created_s : 0;
    const auto fresh = new_superblock(image_.path(), image_.bytes(), secret);
    if (!fresh) return gave_up("superblock", fresh.error().text());
    gave_up("superblock", "made anew from the file's size; it may have been formatted at " +
                              std::to_string(created_s) + " s");
    *first = *fresh;
    *copy = *fresh;
    if (!secret && has_chains()) {
      gave_up("superblock", "the secret of the hashes is lost: no packet would find its bucket");
      secret_lost_ = true;
    }
  }

  bool has_chains() const {
    for (uint32_t chain = 0; chain < kMaxChains; ++chain) {
      if (regions_.chain(chain).state != ChainState::kFree) return true;
    }
    return false;
  }

  // Does the secret explain the tags of index entries, or the checksum of a chain's entry?
  bool fits(HashSecret secret) const {
    uint64_t explained = 0, others = 0;
    for (uint32_t chain = 0; chain < kMaxChains; ++chain) {
      const ChainEntry& entry = regions_.chain(chain);
      if (entry.checksum == chain_entry_checksum(entry, secret)) return true;
    }
    for (uint64_t i = 0; i < regions_.geometry().pages && explained + others < 1000; ++i) {
      const auto tag = static_cast<uint32_t>(regions_.page_table()[i]);
      if (tag >> 31 == 0 || tag_kind(tag) != PageKind::kSegment) continue;
      const auto* entries = reinterpret_cast<const uint64_t*>(
          regions_.page(static_cast<uint32_t>(regions_.first_page() + i)));
      for (uint32_t n = 0; n < kSegmentGroups * kGroupEntries; ++n) {
        const auto id = static_cast<RecordId>(entries[n]);
        if (!regions_.is_record(id)) continue;
        const FlowRecord& record = regions_.record(id);
        const auto entry_tag = static_cast<uint32_t>(entries[n] >> 32);
        const bool fits = std::ranges::any_of(index_keys(record), [&](const FlowKey& key) {
          return entry_tag == hash_tag(hash_key(key, secret));
        });
        ++(fits ? explained : others);
      }
    }
    return explained > others;
  }

  // ---- Redo logs.

  void mend_logs() {
    for (uint32_t log = 0; log < kMaxWorkerSlots; ++log) {
      const LogContents contents = read_log(regions_, log);
      Findings findings;
      check_log(regions_, log, findings);
      if (findings.count(Severity::kDamage) == 0) continue;
      const std::string where = "redo log " + std::to_string(log);
      for (const Finding& finding : findings.listed()) {
        if (finding.severity == Severity::kDamage) {
          gave_up(finding.where, finding.what + ": " + finding.found);
        }
      }
      for (uint64_t parity = 0; parity < 2; ++parity) name_flows_of(log, parity, contents);
      apply_what_is_whole(log, contents);
      std::memset(static_cast<void*>(&regions_.log(log)), 0, kLogBytes);
      did(where, "emptied");
    }
  }

  // A damaged mark does not tell whether the bursts are retired. The worker's own mark tells
  // whether they had gone home.
  void apply_what_is_whole(uint32_t log, const LogContents& contents) {
    for (const uint64_t sequence : contents.valid) {
      if (sequence == 0 || sequence <= contents.retired) continue;
      if (contents.mark_damaged && sequence <= regions_.log(log).applied) continue;
      apply_redo_record(regions_.redo_slot(log, sequence), regions_, pool_->persistence());
      did("redo log " + std::to_string(log), "burst " + std::to_string(sequence) + " completed");
    }
  }

  // The flows that a damaged redo record may have changed: its bytes name them, if they are
  // legible.
  void name_flows_of(uint32_t log, uint64_t parity, const LogContents& contents) {
    if (contents.slots[parity] != RedoSlot::kDamaged) return;
    for_each_redo_line(regions_.redo_slot(log, parity),
                       [&](const RedoLine& line, const uint64_t* words) {
                         if (line.kind != LineKind::kRecordFirst) return;
                         const RecordId id = record_of_line(line.line);
                         if (record_line(id) != line.line || !regions_.is_record(id)) return;
                         FlowRecord after = regions_.record(id);
                         for (unsigned rest = line.mask; rest != 0; rest &= rest - 1) {
                           const auto word = static_cast<size_t>(std::countr_zero(rest));
                           std::memcpy(reinterpret_cast<std::byte*>(&after) + word * 8, words++, 8);
                         }
                         gave_up("redo log " + std::to_string(log),
                                 "the last change of this flow may be missing: record " +
                                     std::to_string(id) + ", " + inside_text(after));
                       });
  }

  // ---- Chains.

  void mend_chains() {
    for (uint32_t chain = 0; chain < kMaxChains; ++chain) {
      ChainEntry& entry = regions_.chain(chain);
      if (secret_lost_) {
        if (entry.state != ChainState::kFree) give_up_chain(chain);
        continue;
      }
      if (entry.state == ChainState::kFree && !leads_somewhere(chain)) continue;
      if (entry.state != ChainState::kFree && is_sound_entry(regions_, chain)) continue;
      if (mend_entry(entry) && is_named_once(chain)) {
        did(chain_label(regions_, chain), "directory entry mended");
      } else {
        give_up_chain(chain);
      }
    }
    for (uint32_t chain = 0; chain < kMaxChains; ++chain) clear_buckets_beyond(chain);
  }

  bool leads_somewhere(uint32_t chain) const {
    for (uint32_t bucket = 0; bucket < kMaxBuckets; ++bucket) {
      const BucketHeader& header = regions_.bucket(chain, bucket);
      if ((header.root_page | header.record_page | header.flows) != 0) return true;
    }
    return false;
  }

  bool is_named_once(uint32_t chain) const {
    for (uint32_t other = 0; other < kMaxChains; ++other) {
      if (other != chain && regions_.chain(other).state != ChainState::kFree &&
          name_of(regions_.chain(other)) == name_of(regions_.chain(chain))) {
        return false;
      }
    }
    return true;
  }

  // Name, buckets and time fit the checksum as they are, or with one bit turned.
  bool mend_entry(ChainEntry& entry) const {
    const HashSecret secret = regions_.superblock().secret;
    ChainEntry mended = entry;
    mended.state = ChainState::kAttached;
    const auto fits = [&] {
      const size_t length = strnlen(mended.name, sizeof(mended.name));
      return length != 0 && length < sizeof(mended.name) && std::has_single_bit(mended.buckets) &&
             mended.buckets <= kMaxBuckets &&
             mended.checksum == chain_entry_checksum(mended, secret);
    };
    auto* const bytes = reinterpret_cast<uint8_t*>(&mended);
    for (size_t bit = 0; !fits() && bit < sizeof(mended) * 8; ++bit) {
      bytes[bit / 8] ^= static_cast<uint8_t>(1 << bit % 8);
      if (mended.state == ChainState::kAttached && fits()) break;
      bytes[bit / 8] ^= static_cast<uint8_t>(1 << bit % 8);
    }
    if (!fits()) return false;
    entry = mended;
    return true;
  }

  void give_up_chain(uint32_t chain) {
    const std::string where = "chain " + std::to_string(chain);
    gave_up(where, "the chain is given up with all its flows; its entry reads \"" +
                       printable_name(regions_.chain(chain)) + "\", " +
                       std::to_string(regions_.chain(chain).buckets) + " buckets");
    for (uint64_t i = 0; i < regions_.geometry().pages; ++i) {
      uint64_t& word = regions_.page_table()[i];
      const auto tag = static_cast<uint32_t>(word);
      if (tag >> 31 == 0 || tag_chain(tag) != chain) continue;
      if (tag_kind(tag) == PageKind::kRecords) {
        give_up_page(where, static_cast<uint32_t>(regions_.first_page() + i));
      }
      word = 0;
    }
    std::memset(static_cast<void*>(&regions_.bucket(chain, 0)), 0,
                kMaxBuckets * sizeof(BucketHeader));
    std::memset(regions_.leases(chain), 0, kMaxExternalAddresses * kPortBlocks * sizeof(uint32_t));
    std::memset(static_cast<void*>(regions_.layouts(chain)), 0,
                kLayoutEntries * sizeof(LayoutEntry));
    regions_.chain(chain) = {};
  }

  static std::string printable_name(const ChainEntry& entry) {
    return printable(entry.name, sizeof(entry.name));
  }

  void give_up_page(const std::string& where, uint32_t page) {
    for (RecordId id = record_id(page, 0); id < record_id(page, kRecordsPerPage); ++id) {
      const FlowRecord& record = regions_.record(id);
      if (record.phase == FlowPhase::kFree || record.checksum != record_checksum(id, record))
        continue;
      gave_up_flow(where, inside_text(record) + ", outside " + outside_text(record));
    }
  }

  void clear_buckets_beyond(uint32_t chain) {
    const ChainEntry& entry = regions_.chain(chain);
    if (entry.state == ChainState::kDropping) return;
    const uint32_t first = entry.state == ChainState::kAttached ? entry.buckets : 0;
    for (uint32_t bucket = first; bucket < kMaxBuckets; ++bucket) {
      BucketHeader& header = regions_.bucket(chain, bucket);
      const BucketHeader empty = {};
      if (std::memcmp(&header, &empty, sizeof(empty)) == 0) continue;
      gave_up(bucket_label(regions_, chain, bucket), "header cleared: there is no such bucket");
      header = empty;
    }
  }

  // ---- Bursts and buckets.

  // Before a chain is given up: its last burst must not come back afterwards.
  void complete_bursts() {
    uint32_t waiting = 0;
    for (uint32_t log = 0; log < kMaxWorkerSlots; ++log) {
      const LogContents contents = read_log(regions_, log);
      waiting += contents.valid[1] > contents.retired ? 1 : 0;
    }
    image_.complete();
    if (waiting != 0) did("redo logs", std::to_string(waiting) + " logs' last bursts completed");
  }

  void finish_dropped_chains() {
    const RecoveryReport recovery = pool_->recover_all();
    if (recovery.refused) gave_up("pool", recovery.refused->text());
  }

  void mend_buckets() {
    std::vector<BucketSalvage> salvaged;
    ReachedPages reached(regions_);
    for (uint32_t chain = 0; chain < kMaxChains; ++chain) {
      const ChainEntry& entry = regions_.chain(chain);
      if (entry.state != ChainState::kAttached) continue;
      for (uint32_t bucket = 0; bucket < entry.buckets; ++bucket) {
        Findings findings;
        const BucketCounts counts = check_bucket(regions_, chain, bucket, reached, findings);
        if (findings.clean()) {
          report_.flows_kept += counts.flows;
          continue;
        }
        const std::string where = bucket_label(regions_, chain, bucket);
        for (const Finding& finding : findings.listed()) {
          report_.steps.push_back(
              {RepairKind::kFound, finding.where,
               finding.what + " " + finding.found + ", expected " + finding.expected});
        }
        salvaged.emplace_back(regions_, chain, bucket,
                              [&](const std::string& why) { gave_up_flow(where, why); });
      }
    }
    // Pages that a salvaged bucket does not own any more may hold another one's flows until all
    // have been read.
    for (const BucketSalvage& bucket : salvaged) bucket.take_out(pool_->persistence());
    for (const BucketSalvage& bucket : salvaged) put_back(bucket);
  }

  void put_back(const BucketSalvage& bucket) {
    const std::string where = bucket_label(regions_, bucket.chain(), bucket.bucket());
    FlowTable table(*pool_, bucket.chain(), 0);
    const size_t flows =
        bucket.put_back(table, [&](const std::string& why) { gave_up_flow(where, why); });
    report_.flows_kept += flows;
    RedoLog(*pool_, 0).retire(RedoLog(*pool_, 0).applied());
    did(where, "rebuilt with " + std::to_string(flows) + " flows");
  }

  // ---- Leases and pages.

  void mend_leases() {
    for (uint32_t chain = 0; chain < kMaxChains; ++chain) {
      const ChainEntry& entry = regions_.chain(chain);
      const uint32_t buckets = entry.state == ChainState::kAttached ? entry.buckets : 0;
      uint32_t* leases = regions_.leases(chain);
      for (uint32_t i = 0; i < kMaxExternalAddresses * kPortBlocks; ++i) {
        const bool is_leasable = i % kPortBlocks >= kFirstLeasedBlock;
        if (leases[i] <= (is_leasable ? buckets : 0)) continue;
        did(chain_label(regions_, chain), "lease " + std::to_string(leases[i]) + " of address " +
                                              std::to_string(i / kPortBlocks) + " block " +
                                              std::to_string(i % kPortBlocks) + " taken back");
        leases[i] = 0;
      }
      if (buckets != 0) mend_flow_leases(chain);
    }
  }

  // The index of an external address follows from flows whose lease is right. A block goes to the
  // flow's bucket if it is free, or if its holder has no flow in it.
  void mend_flow_leases(uint32_t chain) {
    if (!leases_anything(regions_, chain)) return;
    std::map<uint32_t, std::map<uint32_t, uint64_t>> votes;  // external address: index: flows
    std::set<std::array<uint32_t, 3>> users;                 // external address, block, bucket
    for_each_live_record(regions_, chain, [&](uint32_t bucket, uint32_t, const FlowRecord& flow) {
      if (!needs_lease(flow)) return;
      const auto index = lease_of(regions_, chain, bucket, flow);
      if (index) ++votes[flow.outside_key.dst.raw][*index];
      users.insert({flow.outside_key.dst.raw, port_block_of(flow), bucket});
    });
    for_each_live_record(
        regions_, chain, [&](uint32_t bucket, uint32_t id, const FlowRecord& flow) {
          // An endpoint whose host has ended goes with its last flow.
          if (!is_flow(flow) || !needs_lease(flow) || lease_of(regions_, chain, bucket, flow)) {
            return;
          }
          const std::string where = bucket_label(regions_, chain, bucket);
          const uint32_t address = flow.outside_key.dst.raw, block = port_block_of(flow);
          const auto& indexes = votes[address];
          const auto best = std::ranges::max_element(
              indexes, [](const auto& a, const auto& b) { return a.second < b.second; });
          uint32_t* const lease = best == indexes.end()
                                      ? nullptr
                                      : regions_.leases(chain) + best->first * kPortBlocks + block;
          if (lease != nullptr && (*lease == 0 || !users.contains({address, block, *lease - 1}))) {
            *lease = bucket + 1;
            did(where,
                "port block " + std::to_string(block) + " leased again for " + inside_text(flow));
            return;
          }
          close(chain, id);
          --report_.flows_kept;
          gave_up_flow(where, "its external port " +
                                  endpoint_text(flow.outside_key.dst, flow.outside_key.dst_port) +
                                  " is leased by no bucket or by another: " + inside_text(flow));
        });
  }

  void close(uint32_t chain, RecordId id) {
    FlowTable table(*pool_, chain, 0);
    table.close(id);
    table.commit({});
    table.apply();
    RedoLog(*pool_, 0).retire(RedoLog(*pool_, 0).applied());
  }

  // Flows of these revisions go on if the chain's next revision, or the same, tells the pool its
  // layout again.
  void mend_layouts() {
    const HashSecret secret = regions_.superblock().secret;
    for (uint32_t chain = 0; chain < kMaxChains; ++chain) {
      for (uint32_t i = 0; i < kLayoutEntries; ++i) {
        LayoutEntry& entry = regions_.layouts(chain)[i];
        if (entry.checksum == 0 || entry.checksum == layout_checksum(entry, secret)) continue;
        gave_up(chain_label(regions_, chain),
                "where revisions " + std::to_string(entry.first_revision) + " to " +
                    std::to_string(entry.last_revision) + " keep their flows' state");
        entry.checksum = 0;
      }
    }
  }

  void free_leaked_pages() {
    ReachedPages reached(regions_);
    Findings findings;
    for (uint32_t chain = 0; chain < kMaxChains; ++chain) {
      const ChainEntry& entry = regions_.chain(chain);
      if (entry.state != ChainState::kAttached) continue;
      for (uint32_t bucket = 0; bucket < entry.buckets; ++bucket) {
        check_bucket(regions_, chain, bucket, reached, findings);
      }
    }
    uint64_t freed = 0;
    for_each_leaked_page(regions_, reached, [&](uint32_t page) {
      regions_.page_word(page) = 0;
      ++freed;
    });
    if (freed != 0) did("page table", std::to_string(freed) + " pages freed that nothing led to");
  }

  void verify() {
    check_superblocks(regions_, report_.remaining);
    check_chain_directory(regions_, report_.remaining);
    check_logs(regions_, report_.remaining);
    check_pool(regions_, report_.remaining);
  }

  PoolImage& image_;
  const Regions regions_;
  const std::unique_ptr<Pool> pool_;
  bool secret_lost_ = false;
  RepairReport report_;
};

}  // namespace

std::string_view repair_kind_text(RepairKind kind) {
  switch (kind) {
    case RepairKind::kFound:
      return "found";
    case RepairKind::kMended:
      return "mended";
    case RepairKind::kLost:
      return "lost";
  }
  return "unknown";
}

bool RepairReport::lost_anything() const {
  return std::ranges::find(steps, RepairKind::kLost, &RepairStep::kind) != steps.end();
}

RepairReport repair(PoolImage& image) {
  return Repair(image).run();
}

}  // namespace flowkeep
