// FlowTable: one worker's view of one chain's flows. Reads go to the pool where the state lies;
// writes go to the burst's write set and become durable, all or nothing, at commit.
//
// Index: for each bucket an extendible hash table of 4 KiB segments (64 groups of 8 entries of 8
// bytes: 32 bits of hash, record id), directory in a page of its own; after CCEH (Nam et al.,
// FAST'19). A look-up of an established flow touches one group line and the record. Each flow has
// two entries, one for each key, and one record.
//
// Thread rule: one process, one thread; the caller owns every bucket that it names.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "state/flow_record.h"
#include "state/pool.h"
#include "state/state_layout.h"

namespace flowkeep {

// Names a FlowRecord of the pool (record_id() in state/layout.h); 0 is none.
using RecordId = uint32_t;

// Absolute positions in a worker slot's rings after a burst (see dataplane/worker_slot.h). Opaque
// here.
struct BurstPositions {
  uint32_t inbox = 0;
  uint32_t outbox = 0;
  friend bool operator==(const BurstPositions&, const BurstPositions&) = default;
};

// kNone: commit() applies at once, with no redo record, flush or fence of its own. What a crash
// leaves then is undefined; benchmarks compare with it.
enum class Durability : uint8_t { kBurst, kNone };

// kPoolDamaged: what the pool holds for the bucket cannot be; nothing was changed.
enum class OpenStatus : uint8_t { kOk, kPoolFull, kWriteSetFull, kKeyExists, kPoolDamaged };

class FlowTable {
 public:
  // A worker that has no slot yet has no log either: that of the slot may be in use by another.
  static constexpr uint32_t kNoLog = UINT32_MAX;
  // `log`: the redo log (worker slot) that this worker commits to. Continues after the newest
  // record. Allocates everything it will ever need.
  FlowTable(Pool& pool, uint32_t chain_index, uint32_t log,
            Durability durability = Durability::kBurst);
  ~FlowTable();
  FlowTable(const FlowTable&) = delete;
  FlowTable& operator=(const FlowTable&) = delete;

  // Changes the log, on adoption of a worker slot by a standby. No burst may be open, and nobody
  // else may be using the log: page claims of a burst that did not commit are given back.
  void adopt_log(uint32_t log);

  // ---- Look-up, in three steps so that a burst can overlap its cache misses.
  void prefetch_index(uint32_t bucket, uint64_t hash) const;
  // Prefetches the record that the index suggests; may be wrong, costs nothing if it is. Does it
  // suggest one? Yes or no may be wrong too.
  bool prefetch_record(uint32_t bucket, uint64_t hash) const;
  // What the index has under this very key (state/index_keys.h), as this burst sees it. 0: nothing.
  // `addresses`: of an IPv6 key, as a packet that has this key has them; not looked at for IPv4.
  RecordId find_indexed(uint32_t bucket, const FlowKey& key, uint64_t hash,
                        const WideAddresses* addresses = nullptr) const;
  // The flow with this key, also one that is found by its endpoint. 0 if there is no such flow.
  RecordId find(uint32_t bucket, const FlowKey& key, uint64_t hash,
                const WideAddresses* addresses = nullptr) const;

  // The record as this burst sees it (staged copy if there is one).
  const FlowRecord& record(RecordId id) const;

  // ---- Changes, all staged.
  // Room for `n` more flow openings or changes before the write set might overflow, each of which
  // sets an extent of up to `extent_bytes`? A burst ends early when not.
  bool has_room(uint32_t n, size_t extent_bytes = 0) const;
  // A fresh record with both keys indexed, and its soft state zero. phase, revision, times, hard
  // must be filled through stage(). `addresses`: of an IPv6 flow, as the inside key has them; the
  // outside key has them reversed, because IPv6 is not translated.
  struct Opened {
    OpenStatus status;
    RecordId id;
  };
  Opened open(uint32_t bucket, const FlowKey& inside, const FlowKey& outside,
              const WideAddresses* addresses = nullptr);
  // The same for a flow of IPv4 whose endpoint has one name outside for all of its flows.
  // kKeyExists: it has another one already, or this one is another endpoint's.
  // `marks`: of the mapping (state/index_keys.h), if this is its first flow.
  Opened open_mapped(uint32_t bucket, const FlowKey& inside, const FlowKey& outside,
                     uint32_t marks = 0);
  // A record that is no flow. Both keys carry kKeyedMark or more; `second` may be null.
  Opened open_keyed(uint32_t bucket, const FlowKey& key, const FlowKey* second = nullptr);
  // A staged copy to change; the first call copies the record's lines into the write set.
  FlowRecord& stage(RecordId id);
  // Removes its index entries, puts the record on the free list and frees its extent. The endpoint
  // of a flow that was mapped stays known as long as it has another flow.
  void close(RecordId id);
  // Soft: stores last_seen_s in place (and in the staged copy, if any). No log, no flush.
  void touch(RecordId id, uint32_t now_s);

  // ---- Soft state of the functions, in the record: seen at once, by later bursts of this worker
  // and by its successors, whether this burst commits or not (nfs/soft_undo.h undoes it). A record
  // that is opened has what its place held before. After a power failure it may be anything: a
  // reader must be able to tell whether it was written since its node's start.
  std::span<const uint8_t, kSoftStateBytes> soft(RecordId id) const;
  // `offset` and size: of a part of it, whole words of 8 bytes.
  void store_soft(RecordId id, size_t offset, std::span<const uint8_t> state);
  void prefetch_soft(RecordId id) const;

  // ---- Extent: the flow's state of variable size, beside its record; up to kMaxExtentBytes.
  // As this burst sees it; empty: none, or one that does not pass its checksum. Valid until the
  // next call for any record, or the end of the burst.
  std::span<const std::byte> extent(RecordId id) const;
  // Replaces the content, nothing frees it. kOk, kPoolFull, or kWriteSetFull, which a has_room()
  // that said yes excludes; with the last two the flow keeps what it had.
  OpenStatus set_extent(RecordId id, std::span<const std::byte> content);

  // Where a revision's functions keep their state, as LayoutTable::attach() was told.
  std::optional<StateLayout> layout_of(uint32_t revision) const;

  // ---- Port leases (shared by all workers of the chain; a compare-and-swap in the pool).
  // Bucket that holds the block, or -1.
  int32_t lease_owner(uint32_t address_index, uint32_t block) const;
  // Claims a free block for the bucket; durable no later than the next commit.
  bool lease_acquire(uint32_t address_index, uint32_t block, uint32_t bucket);

  // Gives a block back that no committed flow of the bucket uses. Nothing may be staged. After a
  // power failure the block may be the bucket's again.
  void lease_release(uint32_t address_index, uint32_t block, uint32_t bucket);

  // ---- Commit.
  // open() and close() count as changes of one; a has_room(n) that said yes holds unless the index
  // of a bucket grows very unevenly, and then open() says kWriteSetFull, with nothing changed.
  bool dirty() const;  // something is staged
  // Writes the redo record (write set, positions, sequence number, checksum) and one fence.
  // On return the burst is durable. Returns the record's sequence number. Home records are not yet
  // changed.
  uint64_t commit(BurstPositions after);
  // Copies the write set to the home lines. They are flushed during the next burst, whose fence
  // covers them, or by whoever adopts the log.
  void apply();
  // Forgets what is staged (only before commit).
  void abandon();

  // ---- Expiry: looks at up to `records` records of the bucket, continuing where the last call for
  // that bucket ended, and reports each one in use to `visit(id, record)`, flow or not; visit may
  // close it.
  template <typename Visit>
  void sweep(uint32_t bucket, uint32_t records, Visit&& visit);

  // How often this table has met what only damage explains, and how many damaged records sweep()
  // has passed; `flowkeep-pool check` says what is wrong. Nothing that is damaged leads out of the
  // pool.
  struct Damage {
    uint64_t met = 0;
    uint64_t records = 0;
  };
  Damage damage() const;

  uint32_t flows(uint32_t bucket) const;  // live flows of the bucket, staged changes included
  uint32_t keyed(uint32_t bucket) const;  // records in use that are no flows
  uint32_t buckets() const;               // of the chain
  HashSecret hash_secret() const;

 private:
  RecordId sweep_next(uint32_t bucket, uint32_t& budget);  // next live record of the sweep or 0
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

template <typename Visit>
void FlowTable::sweep(uint32_t bucket, uint32_t records, Visit&& visit) {
  while (RecordId id = sweep_next(bucket, records)) visit(id, record(id));
}

// ---- Recovery of one log, by the supervisor, for a worker that is dead (it runs no more user
// code).
struct LogContents;  // state/redo_record.h

class RedoLog {
 public:
  RedoLog(Pool& pool, uint32_t log);
  struct Newest {
    bool valid = false;  // a valid record newer than the log's durable retirement mark
    uint64_t sequence = 0;
    BurstPositions after;
  };
  Newest newest() const;
  // Brings the home lines, flushed and fenced, to the state after the newest valid record (and so
  // applies the one before it too, whose home lines need not be durable yet). Idempotent.
  void apply_newest();
  // Frees pages that an uncommitted burst of this log had claimed. Returns how many.
  uint32_t reclaim_pages();
  // Sequence up to which the worker has returned from apply() (or recovery has applied).
  uint64_t applied() const;
  // Durable: records up to `sequence` will never be applied again. Needed before buckets that they
  // touched get another owner: flushes the home lines of that record, fence, mark, fence.
  // Precondition: applied() >= sequence. May run in another process while the worker goes on
  // committing.
  void retire(uint64_t sequence);

 private:
  void make_durable(const LogContents& contents) const;

  Pool& pool_;
  uint32_t log_;
};

}  // namespace flowkeep
