// The chain directory, and what can be read of a chain's flows beside its running workers.
#include <atomic>
#include <bit>
#include <cassert>
#include <cstring>
#include <ctime>
#include <optional>

#include "state/flow_table.h"
#include "state/page_claims.h"
#include "state/pool_check.h"
#include "state/pool_impl.h"
#include "state/redo_record.h"

namespace flowkeep {

namespace {

std::string_view chain_name(const ChainEntry& entry) {
  return {entry.name, strnlen(entry.name, sizeof(entry.name))};
}

void set_state(ChainEntry& entry, ChainState state, Persistence& persistence) {
  persistence.store64(&entry.state, static_cast<uint64_t>(state));
  persistence.flush(&entry.state, sizeof(entry.state));
  persistence.fence();
}

// The directory entry of the chain in this state; no name: the first in this state.
std::optional<uint32_t> find_chain(const Regions& regions, ChainState state,
                                   std::string_view name = {}) {
  for (uint32_t i = 0; i < kMaxChains; ++i) {
    const ChainEntry& entry = regions.chain(i);
    if (entry.state == state && (name.empty() || chain_name(entry) == name)) return i;
  }
  return std::nullopt;
}

bool touches_chain(const std::byte* slot, const Regions& regions, uint32_t chain) {
  const uint64_t first_header = regions.bucket_line(chain, 0);
  bool touches = false;
  for_each_redo_line(slot, [&](const RedoLine& line, const uint64_t*) {
    if (line.line >= first_header && line.line < first_header + kMaxBuckets) touches = true;
    const uint64_t page = line.line / kLinesPerPage;
    if (!regions.is_page(page)) return;
    const auto tag = static_cast<uint32_t>(regions.page_word(static_cast<uint32_t>(page)));
    if (tag != 0 && tag_chain(tag) == chain) touches = true;
  });
  return touches;
}

// A copy that no writer changed meanwhile, or nothing.
std::optional<FlowRecord> read_whole(const FlowRecord& record) {
  const auto& version = const_cast<uint32_t&>(record.version);
  const std::atomic_ref<uint32_t> current(const_cast<uint32_t&>(version));
  const uint32_t before = current.load(std::memory_order_acquire);
  if (before % 2 != 0) return std::nullopt;
  const FlowRecord copy = record;
  std::atomic_thread_fence(std::memory_order_acquire);
  if (current.load(std::memory_order_relaxed) != before) return std::nullopt;
  return copy;
}

}  // namespace

Result<ChainAttachment> Pool::attach_chain(std::string_view chain, uint32_t buckets) {
  const Regions& regions = impl_->regions;
  Persistence& persistence = impl_->persistence;
  const std::string field = impl_->path + ": chain \"" + std::string(chain) + "\"";
  if (chain.empty() || chain.size() >= sizeof(ChainEntry::name) || chain.find('\0') != chain.npos) {
    return invalid(field, "a name of " + std::to_string(chain.size()) +
                              " bytes is not accepted; accepted: 1 to 63 bytes, none of them zero");
  }
  if (!std::has_single_bit(buckets) || buckets > kMaxBuckets) {
    return invalid(field + ": buckets", std::to_string(buckets) +
                                            " is not accepted; accepted: powers of two up to " +
                                            std::to_string(kMaxBuckets));
  }
  if (const auto known = find_chain(regions, ChainState::kAttached, chain)) {
    const uint32_t attached = regions.chain(*known).buckets;
    if (attached == buckets) return ChainAttachment{*known, buckets, true};
    return invalid(field + ": buckets",
                   std::to_string(buckets) +
                       " is not accepted for a chain that has flows in the pool; accepted: " +
                       std::to_string(attached) + ", or drop the chain first");
  }
  finish_dropping_chains();
  const auto free = find_chain(regions, ChainState::kFree);
  if (!free) {
    return unavailable(field, "the pool holds " + std::to_string(kMaxChains) +
                                  " chains already; accepted: at most so many, drop one first");
  }
  ChainEntry& entry = regions.chain(*free);
  ChainEntry fresh = {};
  std::memcpy(fresh.name, chain.data(), chain.size());
  fresh.buckets = buckets;
  fresh.attached_s = static_cast<uint32_t>(std::time(nullptr));
  fresh.checksum = chain_entry_checksum(fresh, regions.superblock().secret);
  persistence.store(&entry, &fresh, sizeof(fresh));
  persistence.flush(&entry, sizeof(fresh));
  persistence.fence();
  set_state(entry, ChainState::kAttached, persistence);
  return ChainAttachment{*free, buckets, false};
}

Result<void> Pool::drop_chain(std::string_view chain) {
  const Regions& regions = impl_->regions;
  const auto index = find_chain(regions, ChainState::kAttached, chain);
  if (chain.empty() || !index) {
    return Error{Error::Kind::kNotFound, impl_->path + ": chain \"" + std::string(chain) + "\"",
                 "not in the pool; accepted: the name of an attached chain"};
  }
  set_state(regions.chain(*index), ChainState::kDropping, impl_->persistence);
  finish_dropping_chains();
  return {};
}

// May be interrupted anywhere and run again: the entry says "dropping" until everything else is
// done.
void Pool::finish_dropping_chains() {
  const Regions& regions = impl_->regions;
  Persistence& persistence = impl_->persistence;
  while (const auto chain = find_chain(regions, ChainState::kDropping)) {
    retire_records_of(*chain);
    persistence.zero(&regions.bucket(*chain, 0), kMaxBuckets * sizeof(BucketHeader));
    persistence.zero(regions.leases(*chain),
                     kMaxExternalAddresses * kPortBlocks * sizeof(uint32_t));
    persistence.zero(regions.layouts(*chain), kLayoutEntries * sizeof(LayoutEntry));
    persistence.fence();
    uint64_t* table = regions.page_table();
    for (uint64_t i = 0; i < total_pages(); ++i) {
      const auto tag = static_cast<uint32_t>(table[i]);
      if (tag == 0 || tag_chain(tag) != *chain) continue;
      persistence.store64(&table[i], 0);
      persistence.flush(&table[i], sizeof(table[i]));
    }
    persistence.fence();
    PageHints& hints = regions.page_hints();
    std::atomic_ref<uint64_t>(hints.releases).fetch_add(1, std::memory_order_release);
    set_state(regions.chain(*chain), ChainState::kFree, persistence);
  }
}

// Otherwise recovery could redo a burst of the dropped chain on pages that have a new owner.
void Pool::retire_records_of(uint32_t chain) {
  for (uint32_t log = 0; log < kMaxWorkerSlots; ++log) {
    const LogContents contents = read_log(impl_->regions, log);
    uint64_t last = 0;
    for (const uint64_t sequence : contents.valid) {
      if (sequence <= contents.retired) continue;
      if (touches_chain(impl_->regions.redo_slot(log, sequence), impl_->regions, chain)) {
        last = sequence;
      }
    }
    if (last != 0) RedoLog(*this, log).retire(last);
  }
}

void Pool::for_each_flow(uint32_t chain_index,
                         const std::function<bool(const FlowRecord&)>& visit) const {
  for_each_record(chain_index, [&](uint32_t, const FlowRecord& record) {
    return record.phase == FlowPhase::kKeyed || visit(record);
  });
}

void Pool::for_each_record(uint32_t chain_index,
                           const std::function<bool(uint32_t, const FlowRecord&)>& visit) const {
  assert(chain_index < kMaxChains);
  const Regions& regions = impl_->regions;
  const uint32_t buckets = regions.chain(chain_index).buckets;
  for (uint32_t bucket = 0; bucket < buckets && bucket < kMaxBuckets; ++bucket) {
    if (!for_each_record_of(chain_index, bucket, visit)) return;
  }
}

bool Pool::for_each_record_of(uint32_t chain, uint32_t bucket,
                              const std::function<bool(uint32_t, const FlowRecord&)>& visit) const {
  const Regions& regions = impl_->regions;
  const uint32_t tag = page_tag(PageKind::kRecords, chain, bucket);
  // The newest page and how much of it is in use are one word, and change together.
  uint64_t& newest = *reinterpret_cast<uint64_t*>(&regions.bucket(chain, bucket).record_page);
  const uint64_t head = std::atomic_ref<uint64_t>(newest).load(std::memory_order_acquire);
  auto page = static_cast<uint32_t>(head);
  auto used = static_cast<uint32_t>(head >> 32);
  // A chain that is dropped meanwhile ends the walk: its pages lose their tag.
  for (uint64_t walked = 0; walked < total_pages() && regions.is_page(page); ++walked) {
    const uint64_t word = std::atomic_ref<uint64_t>(regions.page_word(page)).load();
    if (static_cast<uint32_t>(word) != tag) break;
    for (uint32_t i = 0; i < used && i < kRecordsPerPage; ++i) {
      const RecordId id = record_id(page, i);
      const auto record = read_whole(regions.record(id));
      if (!record || record->phase == FlowPhase::kFree) continue;
      if (!visit(id, *record)) return false;
    }
    page = static_cast<uint32_t>(word >> 32);
    used = kRecordsPerPage;
  }
  return true;
}

uint64_t Pool::count_flows(uint32_t chain_index) const {
  assert(chain_index < kMaxChains);
  uint64_t flows = 0;
  for (uint32_t bucket = 0; bucket < kMaxBuckets; ++bucket) {
    uint32_t& word = impl_->regions.bucket(chain_index, bucket).flows;
    flows += std::atomic_ref<uint32_t>(word).load(std::memory_order_relaxed);
  }
  return flows;
}

const uint32_t* Pool::port_leases(uint32_t chain_index) const {
  assert(chain_index < kMaxChains);
  return impl_->regions.leases(chain_index);
}

}  // namespace flowkeep
