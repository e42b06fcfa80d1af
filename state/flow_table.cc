#include "state/flow_table.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cstring>
#include <vector>

#include "state/bucket_index.h"
#include "state/extents.h"
#include "state/index_keys.h"
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
// and a guest's also its endpoint's host (3). Directory lines of a split come out of the reserve.
constexpr uint32_t kLinesPerChange = 11;
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
    const FlowKey& own = is_inside ? record.inside_key : record.outside_key;
    if (key.mark == kEndpointMark) return is_host(record) && endpoint_key(own) == key;
    if (!(own == key) || (key.mark != 0) != (record.phase == FlowPhase::kKeyed)) return false;
    if (key.family != Family::kIpv6 || key.mark != 0) [[likely]]
      return true;
    return record.addresses == (is_inside ? *addresses : addresses->reversed());
  }
  RecordId find(uint32_t bucket, const FlowKey& key,
                const WideAddresses* addresses = nullptr) const {
    return index.find(bucket, hash_tag(hash_key(key, secret)),
                      [&](RecordId id) { return is_of(id, key, addresses); });
  }
  void use_log(uint32_t number);
  void write_redo_record(BurstPositions after);
  OpenStatus ensure_free_record(uint32_t bucket);
  RecordId free_record(uint32_t bucket) const;
  bool may_take(uint32_t bucket, RecordId id) const;
  void take_record(uint32_t bucket, RecordId id);
  Opened open_record(uint32_t bucket, const FlowRecord& content);
  Opened reopen_host(RecordId id, const FlowKey& inside, const FlowKey& outside);
  void leave_host(RecordId id);
  void leave_endpoint(RecordId guest);
  void free_record_of(RecordId id);
  bool is_sound(RecordId id) const;
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

bool FlowTable::prefetch_record(uint32_t bucket, uint64_t hash) const {
  return impl_->index.prefetch_record(bucket, hash_tag(hash));
}

RecordId FlowTable::find_indexed(uint32_t bucket, const FlowKey& key, uint64_t hash,
                                 const WideAddresses* addresses) const {
  assert(key.family != Family::kIpv6 || key.mark != 0 || addresses != nullptr);
  impl_->flush.some();
  return impl_->index.find(bucket, hash_tag(hash),
                           [&](RecordId id) { return impl_->is_of(id, key, addresses); });
}

RecordId FlowTable::find(uint32_t bucket, const FlowKey& key, uint64_t hash,
                         const WideAddresses* addresses) const {
  const RecordId id = find_indexed(bucket, key, hash, addresses);
  if (id != 0 || key.mark != 0 || key.family != Family::kIpv4) return id;
  const RecordId host = impl_->find(bucket, endpoint_key(key));
  return host != 0 && impl_->is_of(host, key, nullptr) ? host : 0;
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
  FlowRecord content = {};
  content.inside_key = inside;
  content.outside_key = outside;
  content.phase = FlowPhase::kOpening;
  if (addresses != nullptr) content.addresses = *addresses;
  return impl_->open_record(bucket, content);
}

FlowTable::Opened FlowTable::open_mapped(uint32_t bucket, const FlowKey& inside,
                                         const FlowKey& outside, uint32_t marks) {
  assert(inside.family == Family::kIpv4 && (marks & ~kMappingMarks) == 0);
  const RecordId host = impl_->find(bucket, endpoint_key(inside));
  FlowRecord content = {};
  content.inside_key = inside;
  content.outside_key = outside;
  content.phase = FlowPhase::kOpening;
  content.users = host == 0 ? marks | 1 : mapping_marks(record(host)) | kGuest;
  if (host == 0) return impl_->open_record(bucket, content);
  const FlowRecord& found = record(host);
  if (!(endpoint_key(found.outside_key) == endpoint_key(outside)) || found.inside_key == inside) {
    return {OpenStatus::kKeyExists, 0};
  }
  if (!has_room(1)) return {OpenStatus::kWriteSetFull, 0};
  if (found.phase == FlowPhase::kKeyed) {
    if (impl_->find(bucket, inside) != 0) return {OpenStatus::kKeyExists, 0};
    return impl_->reopen_host(host, inside, outside);
  }
  const Opened opened = impl_->open_record(bucket, content);
  if (opened.status == OpenStatus::kOk) ++stage(host).users;
  return opened;
}

FlowTable::Opened FlowTable::open_keyed(uint32_t bucket, const FlowKey& key,
                                        const FlowKey* second) {
  assert(key.side == Side::kInside && key.mark >= kKeyedMark);
  assert(second == nullptr || (second->side == Side::kOutside && second->mark >= kKeyedMark));
  FlowRecord content = {};
  content.inside_key = key;
  if (second != nullptr) content.outside_key = *second;
  content.phase = FlowPhase::kKeyed;
  return impl_->open_record(bucket, content);
}

// `content`: keys, phase and users of the new record.
FlowTable::Opened FlowTable::Impl::open_record(uint32_t bucket, const FlowRecord& content) {
  assert(sequence != 0);  // it has a log
  assert(!committed);
  if (write_set.room() < kLinesPerChange + kLinesInReserve || claims.room() < kClaimsPerChange) {
    return {OpenStatus::kWriteSetFull, 0};
  }
  const IndexKeys keys = index_keys(content);
  // All that will be missed in the cache, at once.
  std::array<uint32_t, 2> tags = {};
  for (uint32_t i = 0; i < keys.count; ++i) {
    tags[i] = hash_tag(hash_key(keys.keys[i], secret));
    index.prefetch_both_groups(bucket, tags[i]);
  }
  const FlowRecord& next_free = regions.record(free_record(bucket));
  __builtin_prefetch(&next_free);
  __builtin_prefetch(next_free.hard);
  __builtin_prefetch(next_free.soft, 1);
  const WideAddresses addresses[] = {content.addresses, content.addresses.reversed()};
  for (uint32_t i = 0; i < keys.count; ++i) {
    const auto same = [&](RecordId id) { return is_of(id, keys.keys[i], &addresses[i]); };
    if (index.find(bucket, tags[i], same) != 0) return {OpenStatus::kKeyExists, 0};
  }
  // What may fail comes first. Growth that turns out not to be needed stays the bucket's.
  OpenStatus status = ensure_free_record(bucket);
  if (status != OpenStatus::kOk) return {status, 0};
  const RecordId id = free_record(bucket);
  if (!may_take(bucket, id)) {
    ++damage.met;
    return {OpenStatus::kPoolDamaged, 0};
  }
  for (uint32_t i = 0; i < keys.count; ++i) {
    status = index.insert(bucket, tags[i], id, sequence);
    if (status == OpenStatus::kOk) continue;
    if (i == 1) index.remove(bucket, tags[0], id);
    if (status == OpenStatus::kPoolDamaged) ++damage.met;
    return {status, 0};
  }
  const bool never_used = index.header(bucket).free_record == 0;
  take_record(bucket, id);
  FlowRecord& record = write_set.stage_fresh_record(record_line(id), never_used);
  record.inside_key = content.inside_key;
  record.outside_key = content.outside_key;
  record.phase = content.phase;
  record.users = content.users;
  record.bucket = static_cast<uint16_t>(bucket);
  if (content.is_wide()) record.addresses = content.addresses;
  BucketHeader& header = index.stage_header(bucket);
  ++(content.phase == FlowPhase::kKeyed ? header.keyed : header.flows);
  return {OpenStatus::kOk, id};
}

// A flow of an endpoint whose host has ended.
FlowTable::Opened FlowTable::Impl::reopen_host(RecordId id, const FlowKey& inside,
                                               const FlowKey& outside) {
  FlowRecord& record = write_set.stage_record(record_line(id));
  record.inside_key = inside;
  record.outside_key = outside;
  record.phase = FlowPhase::kOpening;
  ++record.users;
  BucketHeader& header = index.stage_header(record.bucket);
  ++header.flows;
  --header.keyed;
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
}

FlowRecord& FlowTable::stage(RecordId id) {
  assert(id != 0 && !impl_->committed);
  return impl_->write_set.stage_record(record_line(id));
}

void FlowTable::close(RecordId id) {
  assert(id != 0 && !impl_->committed);
  Impl& self = *impl_;
  if (!self.is_sound(id)) {
    ++self.damage.met;
    return;
  }
  const FlowRecord& record = self.view(id);
  if (record.extent != 0) {
    self.extents.release(record.bucket, record.extent);
    stage(id).extent = 0;
  }
  if (is_host(record) && user_count(record) > 1) return self.leave_host(id);
  if (is_guest(record)) self.leave_endpoint(id);
  self.free_record_of(id);
}

bool FlowTable::Impl::is_sound(RecordId id) const {
  const FlowRecord& record = view(id);
  const bool is_idle_host = record.phase == FlowPhase::kKeyed && record.users != 0;
  return record.phase != FlowPhase::kFree && !is_idle_host && record.bucket < kMaxBuckets &&
         is_record_page(record.bucket, record_page(id));
}

// The host's own flow ends, and it stays for the others.
void FlowTable::Impl::leave_host(RecordId id) {
  FlowRecord& record = write_set.stage_record(record_line(id));
  record.inside_key = endpoint_key(record.inside_key);
  record.outside_key = endpoint_key(record.outside_key);
  record.phase = FlowPhase::kKeyed;
  --record.users;
  std::memset(record.hard, 0, sizeof(record.hard));
  BucketHeader& header = index.stage_header(record.bucket);
  --header.flows;
  ++header.keyed;
}

void FlowTable::Impl::leave_endpoint(RecordId guest) {
  const uint32_t bucket = view(guest).bucket;
  const RecordId host = find(bucket, endpoint_key(view(guest).inside_key));
  if (host == 0) {
    ++damage.met;
    return;
  }
  if (view(host).phase == FlowPhase::kKeyed && user_count(view(host)) == 1)
    return free_record_of(host);
  --write_set.stage_record(record_line(host)).users;
}

void FlowTable::Impl::free_record_of(RecordId id) {
  FlowRecord& record = write_set.stage_record(record_line(id));
  for (const FlowKey& key : index_keys(record)) {
    if (!index.remove(record.bucket, hash_tag(hash_key(key, secret)), id)) ++damage.met;
  }
  BucketHeader& header = index.stage_header(record.bucket);
  --(record.phase == FlowPhase::kKeyed ? header.keyed : header.flows);
  record.phase = FlowPhase::kFree;
  record.next_free = header.free_record;
  header.free_record = id;
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

void FlowTable::lease_release(uint32_t address_index, uint32_t block, uint32_t bucket) {
  assert(address_index < kMaxExternalAddresses && block < kPortBlocks);
  assert(impl_->write_set.empty() && !impl_->committed);
  uint32_t* word = &impl_->regions.leases(impl_->chain)[address_index * kPortBlocks + block];
  if (!impl_->persistence.compare_and_swap(word, bucket + 1, 0u)) return;
  impl_->persistence.flush(word, sizeof(*word));
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

uint32_t FlowTable::keyed(uint32_t bucket) const {
  return impl_->index.header(bucket).keyed;
}

uint32_t FlowTable::buckets() const {
  return impl_->regions.chain(impl_->chain).buckets;
}

HashSecret FlowTable::hash_secret() const {
  return impl_->secret;
}

}  // namespace flowkeep
