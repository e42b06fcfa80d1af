#include "state/pool_check.h"

#include <bit>
#include <cstring>

#include "state/checksum.h"
#include "state/flow_text.h"
#include "state/index_keys.h"
#include "state/layout_table.h"
#include "state/redo_record.h"
#include "state/superblock.h"

namespace flowkeep {

namespace {

constexpr const char* kZero = "zero";

std::string log_label(uint32_t log) {
  return "redo log " + std::to_string(log);
}

bool all_zero(const void* from, size_t bytes) {
  const auto* at = static_cast<const uint8_t*>(from);
  return bytes == 0 || (at[0] == 0 && std::memcmp(at, at + 1, bytes - 1) == 0);
}

// ---- Redo logs.

std::string slot_text(const std::byte* slot) {
  RedoHeader header;
  std::memcpy(&header, slot, sizeof(header));
  return "magic " + std::to_string(header.magic) + ", sequence " + std::to_string(header.sequence) +
         ", " + std::to_string(header.lines) + " lines, " + std::to_string(header.payload_bytes) +
         " bytes";
}

void check_slot(const Regions& regions, uint32_t log, const LogContents& contents, uint64_t parity,
                Findings& findings) {
  const std::string where = log_label(log) + " slot " + std::to_string(parity);
  const std::byte* slot = regions.redo_slot(log, parity);
  switch (contents.slots[parity]) {
    case RedoSlot::kEmpty:
    case RedoSlot::kRetired:
      return;
    case RedoSlot::kValid: {
      RedoHeader header;
      std::memcpy(&header, slot, sizeof(header));
      findings.add(Severity::kNote, where, "committed burst", std::to_string(header.sequence),
                   "applied by recovery");
      return;
    }
    case RedoSlot::kTorn:
      findings.add(Severity::kNote, where, "burst that was never committed", slot_text(slot),
                   "ignored by recovery");
      return;
    case RedoSlot::kDamaged:
      findings.add(Severity::kDamage, where, "redo record", slot_text(slot),
                   "a whole record, or one that a crash cut short");
      return;
  }
}

void check_claims(const Regions& regions, uint32_t log, uint64_t newest, Findings& findings) {
  uint32_t pending = 0;
  for (const PendingClaim& claim : regions.log(log).pending) {
    if (claim.sequence <= newest) continue;
    const auto page = static_cast<uint32_t>(claim.page_and_tag >> 32);
    if (claim.sequence == newest + 1 && regions.is_page(page)) {
      ++pending;
      continue;
    }
    findings.add(Severity::kDamage, log_label(log), "pending claim",
                 "page " + std::to_string(page) + " by burst " + std::to_string(claim.sequence),
                 "a page of the pool, by a burst up to " + std::to_string(newest + 1));
  }
  if (pending == 0) return;
  findings.add(Severity::kNote, log_label(log), "pages of a burst that was never committed",
               std::to_string(pending), "given back by recovery");
}

// ---- Chains.

void check_chain_entry(const Regions& regions, uint32_t chain, std::set<std::string>& names,
                       Findings& findings) {
  const ChainEntry& entry = regions.chain(chain);
  if (!is_sound_entry(regions, chain)) {
    findings.add(Severity::kDamage, "chain " + std::to_string(chain), "directory entry",
                 "state " + std::to_string(static_cast<uint64_t>(entry.state)) + ", name \"" +
                     printable(entry.name, sizeof(entry.name)) + "\", " +
                     std::to_string(entry.buckets) + " buckets",
                 "state 0, 1 or 2, and name and buckets that fit their checksum");
    return;
  }
  if (entry.state == ChainState::kFree) return;
  if (entry.state == ChainState::kDropping) {
    findings.add(Severity::kNote, chain_label(regions, chain), "state", "being dropped",
                 "dropped by recovery");
  }
  if (!names.insert(entry.name).second) {
    findings.add(Severity::kDamage, "chain " + std::to_string(chain), "name", entry.name,
                 "a name of its own");
  }
}

// Nothing may be left of buckets that are not there: the next chain would inherit it.
void check_no_buckets(const Regions& regions, uint32_t chain, uint32_t first, Findings& findings) {
  for (uint32_t bucket = first; bucket < kMaxBuckets; ++bucket) {
    const BucketHeader& header = regions.bucket(chain, bucket);
    if (all_zero(&header, sizeof(header))) continue;
    findings.add(Severity::kDamage, bucket_label(regions, chain, bucket), "bucket header", "in use",
                 "zero: no chain in the pool has this bucket");
  }
}

void check_leases(const Regions& regions, uint32_t chain, uint32_t buckets, Findings& findings) {
  const uint32_t* leases = regions.leases(chain);
  for (uint32_t i = 0; i < kMaxExternalAddresses * kPortBlocks; ++i) {
    const bool is_leasable = i % kPortBlocks >= kFirstLeasedBlock;
    if (leases[i] <= (is_leasable ? buckets : 0)) continue;
    findings.add(Severity::kDamage, chain_label(regions, chain),
                 "lease of address " + std::to_string(i / kPortBlocks) + " block " +
                     std::to_string(i % kPortBlocks),
                 std::to_string(leases[i]),
                 is_leasable ? "a bucket + 1, at most " + std::to_string(buckets) : kZero);
  }
}

// ---- State layouts.

// A free entry's checksum is zero; another that is wrong was a revision's, or is one whose writing
// a crash cut short: then no flow has it.
void check_layouts(const Regions& regions, uint32_t chain, Findings& findings) {
  const HashSecret secret = regions.superblock().secret;
  for (uint32_t i = 0; i < kLayoutEntries; ++i) {
    const LayoutEntry& entry = regions.layouts(chain)[i];
    if (entry.checksum == 0 || entry.checksum == layout_checksum(entry, secret)) continue;
    bool has_flows = false;
    for_each_live_record(regions, chain, [&](uint32_t, uint32_t, const FlowRecord& flow) {
      has_flows |= entry.first_revision <= flow.revision && flow.revision <= entry.last_revision;
    });
    findings.add(has_flows ? Severity::kDamage : Severity::kWaste, chain_label(regions, chain),
                 "layout entry " + std::to_string(i) + " (revisions " +
                     std::to_string(entry.first_revision) + " to " +
                     std::to_string(entry.last_revision) + ")",
                 "checksum " + std::to_string(entry.checksum),
                 std::to_string(layout_checksum(entry, secret)) + ", or 0: free");
  }
}

// ---- Page table.

uint64_t check_page_table(const Regions& regions, const ReachedPages& reached, Findings& findings) {
  for_each_leaked_page(regions, reached, [&](uint32_t page) {
    const uint64_t word = regions.page_word(page);
    const std::string where = "page " + std::to_string(page);
    if (!is_claim(regions, word)) {
      findings.add(Severity::kWaste, where, "page table word", std::to_string(word),
                   "zero, or a kind of page of a bucket of a chain in the pool");
      return;
    }
    const auto tag = static_cast<uint32_t>(word);
    findings.add(Severity::kWaste, where, "claimed page", "nothing leads to it",
                 "part of " + bucket_label(regions, tag_chain(tag), tag_bucket(tag)));
  });
  const uint64_t* table = regions.page_table();
  const uint64_t pages = regions.geometry().pages;
  return pages - static_cast<uint64_t>(std::count(table, table + pages, uint64_t{0}));
}

// A translated flow's answers find its bucket by the lease of their destination port.
void check_flow_leases(const Regions& regions, uint32_t chain, Findings& findings) {
  if (!leases_anything(regions, chain)) return;
  for_each_live_record(regions, chain, [&](uint32_t bucket, uint32_t id, const FlowRecord& flow) {
    if (!needs_lease(flow) || lease_of(regions, chain, bucket, flow)) return;
    findings.add(Severity::kDamage,
                 bucket_label(regions, chain, bucket) + " record " + std::to_string(id) + " (" +
                     inside_text(flow) + ")",
                 "lease of port block " + std::to_string(port_block_of(flow)), "not the bucket's",
                 "the bucket's at one external address: " +
                     endpoint_text(flow.outside_key.dst, flow.outside_key.dst_port) + " is in it");
  });
}

}  // namespace

std::string printable(const char* text, size_t bytes) {
  std::string shown(text, strnlen(text, bytes));
  for (char& letter : shown) {
    if (letter < ' ' || letter > '~') letter = '?';
  }
  return shown;
}

std::string chain_label(const Regions& regions, uint32_t chain) {
  const ChainEntry& entry = regions.chain(chain);
  const size_t length = strnlen(entry.name, sizeof(entry.name));
  if (length == 0 || length == sizeof(entry.name)) return "chain " + std::to_string(chain);
  return "chain \"" + printable(entry.name, length) + "\"";
}

std::string bucket_label(const Regions& regions, uint32_t chain, uint32_t bucket) {
  return chain_label(regions, chain) + " bucket " + std::to_string(bucket);
}

uint64_t chain_entry_checksum(const ChainEntry& entry, HashSecret secret) {
  const uint64_t start = uint64_t{entry.attached_s} << 32 | entry.buckets;
  return checksum64(entry.name, sizeof(entry.name), start, secret);
}

bool is_sound_entry(const Regions& regions, uint32_t chain) {
  const ChainEntry& entry = regions.chain(chain);
  // A chain that was never there, or was dropped, or whose attachment was interrupted.
  if (entry.state == ChainState::kFree) return true;
  if (entry.state != ChainState::kAttached && entry.state != ChainState::kDropping) return false;
  const size_t length = strnlen(entry.name, sizeof(entry.name));
  return length != 0 && length < sizeof(entry.name) && std::has_single_bit(entry.buckets) &&
         entry.buckets <= kMaxBuckets &&
         entry.checksum == chain_entry_checksum(entry, regions.superblock().secret);
}

bool is_claim(const Regions& regions, uint64_t word) {
  const auto tag = static_cast<uint32_t>(word);
  const uint32_t chain = tag_chain(tag);
  if (tag >> 31 == 0 || chain >= kMaxChains) return false;
  if (tag_kind(tag) < PageKind::kRecords || tag_kind(tag) > PageKind::kExtents) return false;
  const ChainEntry& entry = regions.chain(chain);
  return is_sound_entry(regions, chain) && entry.state != ChainState::kFree &&
         tag_bucket(tag) < entry.buckets;
}

bool leases_anything(const Regions& regions, uint32_t chain) {
  return !all_zero(regions.leases(chain), kMaxExternalAddresses * kPortBlocks * sizeof(uint32_t));
}

bool has_its_folds(const FlowRecord& flow, HashSecret secret) {
  const FlowKey& key = flow.inside_key;
  return key.src == fold_address(flow.addresses.src, secret) &&
         key.dst == fold_address(flow.addresses.dst, secret) && flow.outside_key == key.reversed();
}

uint32_t port_block_of(const FlowRecord& flow) {
  return flow.outside_key.dst_port.host() / static_cast<uint32_t>(kPortBlockPorts);
}

bool needs_lease(const FlowRecord& flow) {
  return (flow.users & kUnleased) == 0 && flow.inside_key.mark < kKeyedMark &&
         !(flow.outside_key == flow.inside_key.reversed()) &&
         port_block_of(flow) >= kFirstLeasedBlock;
}

std::optional<uint32_t> lease_of(const Regions& regions, uint32_t chain, uint32_t bucket,
                                 const FlowRecord& flow) {
  for (uint32_t address = 0; address < kMaxExternalAddresses; ++address) {
    if (regions.leases(chain)[address * kPortBlocks + port_block_of(flow)] == bucket + 1) {
      return address;
    }
  }
  return std::nullopt;
}

bool ReachedPages::reach(uint32_t page) {
  const uint64_t index = page - regions_.first_page();
  if (reached_[index]) return false;
  reached_[index] = true;
  return true;
}

void check_superblocks(const Regions& regions, Findings& findings) {
  const uint64_t bytes = regions.geometry().pool_bytes;
  for (const size_t at : {size_t{0}, kSuperblockCopyAt}) {
    const char* const where = at == 0 ? "superblock" : "superblock's copy";
    const auto& superblock = *reinterpret_cast<const Superblock*>(regions.base() + at);
    const auto checked = check_superblock(where, superblock, bytes);
    if (checked) continue;
    // "where.field: FOUND is not accepted; accepted: EXPECTED; what to do"
    const auto& [kind, field, message] = checked.error();
    const size_t expected = message.find("accepted: ") + 10;
    findings.add(Severity::kDamage, where, field.substr(field.rfind('.') + 1),
                 message.substr(0, message.find(' ')),
                 message.substr(expected, message.find(';', expected) - expected));
  }
  if (std::memcmp(regions.base(), regions.base() + kSuperblockCopyAt, sizeof(Superblock)) != 0 &&
      findings.clean()) {
    findings.add(Severity::kDamage, "superblock's copy", "content", "another pool's",
                 "the same as the superblock");
  }
}

void check_log(const Regions& regions, uint32_t log, Findings& findings) {
  const LogContents contents = read_log(regions, log);
  if (contents.mark_damaged) {
    findings.add(Severity::kDamage, log_label(log), "retired mark",
                 std::to_string(regions.log(log).retired), "a sequence and its check");
  }
  for (uint64_t parity = 0; parity < 2; ++parity) {
    check_slot(regions, log, contents, parity, findings);
  }
  check_claims(regions, log, contents.newest(), findings);
}

void check_logs(const Regions& regions, Findings& findings) {
  for (uint32_t log = 0; log < kMaxWorkerSlots; ++log) check_log(regions, log, findings);
}

void check_chain_directory(const Regions& regions, Findings& findings) {
  std::set<std::string> names;
  for (uint32_t chain = 0; chain < kMaxChains; ++chain) {
    check_chain_entry(regions, chain, names, findings);
    const ChainEntry& entry = regions.chain(chain);
    if (!is_sound_entry(regions, chain) || entry.state == ChainState::kDropping) continue;
    const bool attached = entry.state == ChainState::kAttached;
    check_no_buckets(regions, chain, attached ? entry.buckets : 0, findings);
  }
}

PoolCounts check_pool(const Regions& regions, Findings& findings) {
  PoolCounts counts;
  ReachedPages reached(regions);
  for (uint32_t chain = 0; chain < kMaxChains; ++chain) {
    const ChainEntry& entry = regions.chain(chain);
    if (!is_sound_entry(regions, chain) || entry.state == ChainState::kDropping) continue;
    const bool attached = entry.state == ChainState::kAttached;
    check_leases(regions, chain, attached ? entry.buckets : 0, findings);
    if (!attached) continue;
    ++counts.chains;
    for (uint32_t bucket = 0; bucket < entry.buckets; ++bucket) {
      const BucketCounts of_bucket = check_bucket(regions, chain, bucket, reached, findings);
      counts.flows += of_bucket.flows;
      counts.records += of_bucket.records;
    }
    check_flow_leases(regions, chain, findings);
    check_layouts(regions, chain, findings);
  }
  counts.pages_claimed = check_page_table(regions, reached, findings);
  return counts;
}

}  // namespace flowkeep
