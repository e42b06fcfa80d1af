#include "state/flow_table.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <vector>

#include "state/bucket_index.h"
#include "state/extents.h"
#include "state/layout_table.h"
#include "state/page_claims.h"
#include "state/planted_bug.h"
#include "state/pool_impl.h"
#include "state/record_checksum.h"
#include "state/redo_record.h"
#include "state/write_set.h"

namespace flowkeep {

namespace {

// An opening stages its record (3), its bucket (1), for each of its two keys an index group or two,
// and now and then a directory line or two for a split.
constexpr uint32_t kLinesPerChange = 9;
constexpr uint32_t kLinesInReserve = 64;
constexpr uint32_t kClaimsPerChange = 3;

}  // namespace

struct FlowTable::Impl {
  Impl(Pool& owner, Pool::Impl& pool, uint32_t chain_index, Durability wanted)
      : regions(pool.regions),
        persistence(pool.persistence),
        secret(pool.regions.superblock().secret),
        chain(chain_index),
        durability(wanted),
        write_set(regions.base()),
        flush(persistence, 4 * WriteSet::kMaxLines),
        claims(regions, persistence),
        index(regions, chain, write_set, claims, persistence),
        extents(regions, chain, write_set, index, claims, persistence),
        layouts(owner, chain_index),
        sweeps(kMaxBuckets) {}

  // Where the next sweep of a bucket goes on. Page 0: at its newest page.
  struct SweepCursor {
    uint32_t page = 0;
    uint32_t record = 0;
  };

  const FlowRecord& view(RecordId id) const {
    return *reinterpret_cast<const FlowRecord*>(write_set.view(record_line(id)));
  }
  bool is_of(RecordId id, const FlowKey& key, const WideAddresses* addresses) const {
    const FlowRecord& record = view(id);
    const bool is_inside = key.side == Side::kInside;
    if (!((is_inside ? record.inside_key : record.outside_key) == key)) return false;
    if (key.family != Family::kIpv6) [[likely]]
      return true;
    return record.addresses == (is_inside ? *addresses : addresses->reversed());
  }
  void use_log(uint32_t number);
  void write_redo_record(BurstPositions after);
  OpenStatus ensure_free_record(uint32_t bucket);
  RecordId free_record(uint32_t bucket) const;
  bool may_take(uint32_t bucket, RecordId id) const;
  void take_record(uint32_t bucket, RecordId id);
  bool is_record_page(uint32_t bucket, uint32_t page) const;

  const Regions regions;
  Persistence& persistence;
  const HashSecret secret;
  const uint32_t chain;
  const Durability durability;
  uint32_t log = FlowTable::kNoLog;
  uint64_t sequence = 0;        // of the next commit
  bool committed = false;       // and not yet applied
  bool lease_acquired = false;  // in this burst
  WriteSet write_set;
  LazyFlush flush;  // what the burst before this one changed
  PageClaims claims;
  BucketIndex index;
  Extents extents;
  LayoutTable layouts;
  std::vector<SweepCursor> sweeps;
  Damage damage;
};

void FlowTable::Impl::use_log(uint32_t number) {
  assert(number < kMaxWorkerSlots && write_set.empty() && !committed);
  log = number;
  claims.use_log(number);
  flush.all();
  const LogContents contents = read_log(regions, number);
  for (const uint64_t valid : contents.valid) {
    // Its worker may have died before it had flushed them. They are due by the next commit, as its
    // own would be; here they could be many, in pages that this process has never touched.
    if (valid <= contents.retired) continue;
    for_each_home_line(regions.redo_slot(number, valid), regions,
                       [this](const std::byte* line) { flush.add(line); });
  }
  give_back_claims(regions, number, contents.newest(), persistence);
  sequence = contents.newest() + 1;
}

FlowTable::FlowTable(Pool& pool, uint32_t chain_index, uint32_t log, Durability durability)
    : impl_(std::make_unique<Impl>(pool, *pool.impl_, chain_index, durability)) {
  assert(chain_index < kMaxChains);
  if (log != kNoLog) impl_->use_log(log);
}

FlowTable::~FlowTable() = default;

void FlowTable::adopt_log(uint32_t log) {
  impl_->use_log(log);
}

// ---- Look-up.

void FlowTable::prefetch_index(uint32_t bucket, uint64_t hash) const {
  impl_->index.prefetch_group(bucket, hash_tag(hash));
}

void FlowTable::prefetch_record(uint32_t bucket, uint64_t hash) const {
  impl_->index.prefetch_record(bucket, hash_tag(hash));
}

RecordId FlowTable::find(uint32_t bucket, const FlowKey& key, uint64_t hash,
                         const WideAddresses* addresses) const {
  assert(key.family != Family::kIpv6 || addresses != nullptr);
  impl_->flush.some();
  return impl_->index.find(bucket, hash_tag(hash),
                           [&](RecordId id) { return impl_->is_of(id, key, addresses); });
}

const FlowRecord& FlowTable::record(RecordId id) const {
  return impl_->view(id);
}

// ---- Changes.

bool FlowTable::has_room(uint32_t n, size_t extent_bytes) const {
  const uint32_t lines = kLinesPerChange + (extent_bytes == 0 ? 0 : Extents::kLinesPerChange);
  const uint32_t claims = kClaimsPerChange + Extents::claims_for(extent_bytes);
  return impl_->write_set.room() >= n * lines + kLinesInReserve &&
         impl_->claims.room() >= n * claims && impl_->extents.room() >= 2 * n;
}

FlowTable::Opened FlowTable::open(uint32_t bucket, const FlowKey& inside, const FlowKey& outside,
                                  const WideAddresses* addresses) {
  assert((inside.family == Family::kIpv6) == (addresses != nullptr));
  assert(inside.side == Side::kInside && outside.side == Side::kOutside);
  assert(impl_->sequence != 0);  // it has a log
  assert(!impl_->committed);
  if (!has_room(1)) return {OpenStatus::kWriteSetFull, 0};
  const uint64_t inside_hash = hash_key(inside, impl_->secret);
  const uint64_t outside_hash = hash_key(outside, impl_->secret);
  // All that will be missed in the cache, at once.
  impl_->index.prefetch_both_groups(bucket, hash_tag(inside_hash));
  impl_->index.prefetch_both_groups(bucket, hash_tag(outside_hash));
  const FlowRecord& next_free = impl_->regions.record(impl_->free_record(bucket));
  __builtin_prefetch(&next_free);
  __builtin_prefetch(next_free.hard);
  __builtin_prefetch(next_free.soft, 1);
  const WideAddresses reversed = addresses == nullptr ? WideAddresses{} : addresses->reversed();
  if (find(bucket, inside, inside_hash, addresses) != 0 ||
      find(bucket, outside, outside_hash, &reversed) != 0) {
    return {OpenStatus::kKeyExists, 0};
  }
  // What may fail comes first. Growth that turns out not to be needed stays the bucket's.
  BucketIndex& index = impl_->index;
  OpenStatus status = impl_->ensure_free_record(bucket);
  if (status != OpenStatus::kOk) return {status, 0};
  const RecordId id = impl_->free_record(bucket);
  if (!impl_->may_take(bucket, id)) {
    ++impl_->damage.met;
    return {OpenStatus::kPoolDamaged, 0};
  }
  status = index.insert(bucket, hash_tag(inside_hash), id, impl_->sequence);
  if (status == OpenStatus::kPoolDamaged) ++impl_->damage.met;
  if (status != OpenStatus::kOk) return {status, 0};
  status = index.insert(bucket, hash_tag(outside_hash), id, impl_->sequence);
  if (status != OpenStatus::kOk) {
    index.remove(bucket, hash_tag(inside_hash), id);
    return {status, 0};
  }
  const bool never_used = index.header(bucket).free_record == 0;
  impl_->take_record(bucket, id);
  FlowRecord& record = impl_->write_set.stage_fresh_record(record_line(id), never_used);
  record.inside_key = inside;
  record.outside_key = outside;
  record.phase = FlowPhase::kOpening;
  record.bucket = static_cast<uint16_t>(bucket);
  if (addresses != nullptr) record.addresses = *addresses;
  constexpr uint8_t kNoSoftState[kSoftStateBytes] = {};
  store_soft(id, 0, kNoSoftState);
  return {OpenStatus::kOk, id};
}

OpenStatus FlowTable::Impl::ensure_free_record(uint32_t bucket) {
  const BucketHeader& header = index.header(bucket);
  if (header.free_record != 0) return OpenStatus::kOk;
  if (header.record_page != 0 && header.records_used < kRecordsPerPage) return OpenStatus::kOk;
  if (claims.room() == 0) return OpenStatus::kWriteSetFull;
  const uint32_t tag = page_tag(PageKind::kRecords, chain, bucket);
  const uint32_t page = claims.claim(tag, header.record_page, sequence);
  if (page == 0) return OpenStatus::kPoolFull;
  BucketHeader& staged = index.stage_header(bucket);
  staged.record_page = page;
  staged.records_used = 0;
  ++staged.record_pages;
  return OpenStatus::kOk;
}

RecordId FlowTable::Impl::free_record(uint32_t bucket) const {
  const BucketHeader& header = index.header(bucket);
  if (header.free_record != 0) return header.free_record;
  return record_id(header.record_page, header.records_used);
}

// Of the bucket's pages, and not a live flow's?
bool FlowTable::Impl::may_take(uint32_t bucket, RecordId id) const {
  if (!is_record_page(bucket, record_page(id)) || record_place(id) >= kRecordsPerPage) return false;
  return index.header(bucket).free_record == 0 || view(id).phase == FlowPhase::kFree;
}

void FlowTable::Impl::take_record(uint32_t bucket, RecordId id) {
  BucketHeader& header = index.stage_header(bucket);
  if (header.free_record != 0) {
    header.free_record = view(id).next_free;
  } else {
    ++header.records_used;
  }
  ++header.flows;
}

FlowRecord& FlowTable::stage(RecordId id) {
  assert(id != 0 && !impl_->committed);
  return impl_->write_set.stage_record(record_line(id));
}

void FlowTable::close(RecordId id) {
  FlowRecord& record = stage(id);
  const uint32_t bucket = record.bucket;
  if (record.phase == FlowPhase::kFree || bucket >= kMaxBuckets ||
      !impl_->is_record_page(bucket, record_page(id))) {
    ++impl_->damage.met;
    return;
  }
  if (record.extent != 0) impl_->extents.release(bucket, record.extent);
  record.extent = 0;
  for (const FlowKey& key : {record.inside_key, record.outside_key}) {
    if (!impl_->index.remove(bucket, hash_tag(hash_key(key, impl_->secret)), id)) {
      ++impl_->damage.met;
    }
  }
  BucketHeader& header = impl_->index.stage_header(bucket);
  record.phase = FlowPhase::kFree;
  record.next_free = header.free_record;
  header.free_record = id;
  --header.flows;
}

void FlowTable::touch(RecordId id, uint32_t now_s) {
  FlowRecord& home = impl_->regions.record(id);
  if (home.last_seen_s != now_s) impl_->persistence.store32(&home.last_seen_s, now_s);
  FlowRecord* staged = impl_->write_set.staged_record(record_line(id));
  if (staged != nullptr) staged->last_seen_s = now_s;
}

// ---- Soft state.

std::span<const uint8_t, kSoftStateBytes> FlowTable::soft(RecordId id) const {
  return impl_->regions.record(id).soft;
}

void FlowTable::store_soft(RecordId id, size_t offset, std::span<const uint8_t> state) {
  assert(offset % 8 == 0 && state.size() % 8 == 0 && offset + state.size() <= kSoftStateBytes);
  impl_->persistence.store(impl_->regions.record(id).soft + offset, state.data(), state.size());
}

void FlowTable::prefetch_soft(RecordId id) const {
  __builtin_prefetch(impl_->regions.record(id).soft, 1);
}

// ---- Extents.

std::span<const std::byte> FlowTable::extent(RecordId id) const {
  const uint32_t first_block = impl_->view(id).extent;
  if (first_block == 0) return {};
  return impl_->extents.read(id, first_block);
}

OpenStatus FlowTable::set_extent(RecordId id, std::span<const std::byte> content) {
  assert(content.size() <= kMaxExtentBytes && !impl_->committed);
  Impl& self = *impl_;
  // The record's lines and its release come on top of what write() looks for itself.
  if (self.write_set.room() < kRecordLines + Extents::kLinesPerChange || self.extents.room() == 0) {
    return OpenStatus::kWriteSetFull;
  }
  const FlowRecord before = self.view(id);
  uint32_t first_block = 0;
  if (!content.empty()) {
    const OpenStatus written =
        self.extents.write(before.bucket, id, content, self.sequence, first_block);
    if (written != OpenStatus::kOk) return written;
  }
  if (before.extent != 0) self.extents.release(before.bucket, before.extent);
  if (before.extent != first_block) stage(id).extent = first_block;
  return OpenStatus::kOk;
}

std::optional<StateLayout> FlowTable::layout_of(uint32_t revision) const {
  return impl_->layouts.find(revision);
}

// ---- Port leases.

int32_t FlowTable::lease_owner(uint32_t address_index, uint32_t block) const {
  assert(address_index < kMaxExternalAddresses && block < kPortBlocks);
  uint32_t& word = impl_->regions.leases(impl_->chain)[address_index * kPortBlocks + block];
  const uint32_t holder = std::atomic_ref<uint32_t>(word).load(std::memory_order_acquire);
  return static_cast<int32_t>(holder) - 1;
}

bool FlowTable::lease_acquire(uint32_t address_index, uint32_t block, uint32_t bucket) {
  assert(address_index < kMaxExternalAddresses && block < kPortBlocks && bucket < kMaxBuckets);
  if (block < kFirstLeasedBlock) return false;
  uint32_t* word = &impl_->regions.leases(impl_->chain)[address_index * kPortBlocks + block];
  if (!impl_->persistence.compare_and_swap(word, 0u, bucket + 1)) return false;
  impl_->persistence.flush(word, sizeof(*word));
  impl_->lease_acquired = true;
  return true;
}

// ---- Commit.

bool FlowTable::dirty() const {
  return !impl_->write_set.empty();
}

uint64_t FlowTable::commit(BurstPositions after) {
  Impl& self = *impl_;
  assert(!self.committed && self.log != kNoLog);
  self.write_set.store_soft_words(self.persistence);
  self.extents.link_released();
  self.flush.all();
  if (self.durability == Durability::kNone) {
    self.write_set.compare_with_home();
  } else {
    self.write_redo_record(after);
  }
  self.committed = true;
  self.lease_acquired = false;
  self.claims.burst_ended();
  self.extents.burst_ended();
  return self.sequence++;
}

void FlowTable::Impl::write_redo_record(BurstPositions after) {
  const size_t bytes = write_set.build_record(sequence, after, secret);
  // What was written past the write set must be durable before a record that relies on it can be
  // whole.
  const bool written = claims.any() || lease_acquired || extents.any_written();
  if (written && !planted(PlantedBug::kMissingClaimFence)) persistence.fence();
  persistence.nontemporal(regions.redo_slot(log, sequence), write_set.record(), bytes);
  if (!planted(PlantedBug::kMissingFence)) persistence.fence();
}

void FlowTable::apply() {
  Impl& self = *impl_;
  assert(self.committed);
  self.write_set.apply(self.persistence, self.flush);
  self.persistence.store64(&self.regions.log(self.log).applied, self.sequence - 1);
  self.write_set.clear();
  self.committed = false;
}

void FlowTable::abandon() {
  Impl& self = *impl_;
  assert(!self.committed);
  self.write_set.clear();
  self.extents.burst_ended();
  if (self.claims.any()) {
    give_back_claims(self.regions, self.log, self.sequence - 1, self.persistence);
    self.claims.burst_ended();
  }
}

// ---- Expiry.

bool FlowTable::Impl::is_record_page(uint32_t bucket, uint32_t page) const {
  return regions.is_page(page) && static_cast<uint32_t>(regions.page_word(page)) ==
                                      page_tag(PageKind::kRecords, chain, bucket);
}

RecordId FlowTable::sweep_next(uint32_t bucket, uint32_t& budget) {
  Impl& self = *impl_;
  Impl::SweepCursor& cursor = self.sweeps[bucket];
  const BucketHeader& header = self.index.header(bucket);
  if (cursor.page == 0) cursor = {header.record_page, 0};
  while (budget != 0) {
    // A page claimed by an abandoned burst may be gone, and a damaged link lead anywhere: then the
    // sweep starts over with its next call.
    if (!self.is_record_page(bucket, cursor.page)) {
      cursor = {};
      break;
    }
    const bool is_newest = cursor.page == header.record_page;
    const uint32_t used =
        is_newest ? std::min(header.records_used, kRecordsPerPage) : kRecordsPerPage;
    if (cursor.record >= used) {
      cursor = {static_cast<uint32_t>(self.regions.page_word(cursor.page) >> 32), 0};
      if (is_newest && used == 0) --budget;  // a link may lead back to it
      continue;
    }
    const RecordId id = record_id(cursor.page, cursor.record++);
    --budget;
    if (self.view(id).phase == FlowPhase::kFree) continue;
    // As the last burst left it; what this one stages gets its checksum at commit.
    const FlowRecord& home = self.regions.record(id);
    if (home.phase != FlowPhase::kFree && home.checksum != record_checksum(id, home)) {
      ++self.damage.records;
    }
    return id;
  }
  if (cursor.page == 0) budget = 0;  // once around
  return 0;
}

FlowTable::Damage FlowTable::damage() const {
  return impl_->damage;
}

uint32_t FlowTable::flows(uint32_t bucket) const {
  return impl_->index.header(bucket).flows;
}

HashSecret FlowTable::hash_secret() const {
  return impl_->secret;
}

}  // namespace flowkeep
