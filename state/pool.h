// Pool: the state pool, one libpmem-mapped file that holds every flow record, the index that finds
// them and each worker slot's redo log. The only place where hard state lives.
//
// Everything in it is reached by offsets, never by pointers. Fixed regions come first, then pages
// of 4 KiB that buckets claim as they grow:
//
//   superblock | chain directory | bucket headers | port leases | redo logs | page table | pages
//
// Who writes what: the supervisor formats, attaches chains and recovers; a bucket's header, index
// pages and records are written only by the worker that owns the bucket, and only through a
// WriteSet; a redo log only by the process that occupies its worker slot. Page claims and port
// leases are single compare-and-swap words.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "state/flow_key.h"
#include "state/flow_record.h"
#include "state/persistence.h"
#include "state/result.h"

namespace flowkeep {

inline constexpr uint32_t kPoolFormatVersion = 3;
inline constexpr size_t kPageBytes = 4096;
inline constexpr size_t kMaxChains = 16;
inline constexpr size_t kMaxBuckets = 1024;  // of one chain
inline constexpr size_t kMaxWorkerSlots = 16;
inline constexpr size_t kMaxExternalAddresses = 8;  // of one chain
inline constexpr size_t kPortBlockPorts = 64;       // a lease is a block of 64 external ports
inline constexpr size_t kPortBlocks = 65536 / kPortBlockPorts;  // of each address
inline constexpr size_t kFirstLeasedBlock =
    1024 / kPortBlockPorts;                          // well-known ports are never leased
inline constexpr size_t kRedoSlotBytes = 64 * 1024;  // two slots for each log

// Where the pool lies, which decides what it survives.
enum class Medium { kDax, kTmpfs, kHugetlbfs, kDisk };
std::string_view medium_name(Medium medium);  // "dax", "tmpfs", "hugetlbfs", "disk"
std::string_view medium_survives(
    Medium medium);  // "power failure", "worker and node-process death", ...

struct PoolOptions {
  std::string path;
  uint64_t bytes = 0;  // exact size of the file; at least Pool::minimum_bytes()
  bool emulate_pmem =
      false;  // run the flushes though the medium is not persistent (PMEM_IS_PMEM_FORCE=1)
  InjectedDelay delay = {};  // only where the flushes run
};

// Life of the bytes that make a chain known to the pool.
struct ChainAttachment {
  uint32_t index = 0;    // into the chain directory
  uint32_t buckets = 0;  // power of two
  bool existed = false;  // its flows were found in the pool
};

struct RecoveryReport {
  uint32_t redo_records_applied = 0;
  uint32_t redo_records_torn =
      0;  // newest slot invalid: the burst before it is the last committed one
  uint32_t pages_reclaimed = 0;  // claimed by a burst that never committed
  // Recovery cannot tell which bursts were committed, or to whom a page belongs; nothing was
  // changed.
  std::optional<Error> refused;
};

class Pool {
 public:
  // Maps an existing pool, or formats a new one when no file is there (or the file is empty).
  // Errors name path, field, value and what is accepted: a different size, a bad magic, an unknown
  // version, a failed checksum, another geometry, a file locked by another node (flock).
  // Never formats over a file that is not a pool. An existing pool's redo logs are NOT applied
  // here.
  static Result<std::unique_ptr<Pool>> open(const PoolOptions& options);
  // A pool in memory that outlives it and belongs to the caller: no file, no lock, nothing checked
  // but that geometry follows from `bytes`. For images of pools and for tests.
  static std::unique_ptr<Pool> over(std::byte* base, uint64_t bytes);
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  static uint64_t minimum_bytes();
  static uint64_t maximum_bytes();

  // Node start: applies every log's newest valid record, reclaims pages of uncommitted bursts, and
  // resets the logs. Its cost does not depend on the number of flows. Run before any worker exists.
  // Refuses, changing nothing, when a redo log or the chain directory is damaged.
  RecoveryReport recover_all();

  // Supervisor only, no worker of that chain running. `chain` is the chain's name, at most 63
  // bytes. Attaching a known chain with another bucket count is refused.
  Result<ChainAttachment> attach_chain(std::string_view chain, uint32_t buckets);
  // Gives all pages and leases of the chain back. Supervisor only, no worker of that chain running.
  Result<void> drop_chain(std::string_view chain);

  Medium medium() const;
  bool emulated() const;  // flushes run, the medium is not persistent
  // What flushes and fences do: "as the medium gives it", or "emulated", with injected delays
  // "emulated, +200 ns per fence, +10 ns per line".
  std::string flush_text() const;
  bool was_formatted() const;  // open() made it new
  HashSecret hash_secret() const;
  uint64_t total_pages() const;
  uint64_t free_pages()
      const;                // counted by a scan of the page table: for reports, not the packet path
  std::byte* base() const;  // start of the mapping; the same in every forked process
  // Everything before the pages: directory, bucket headers, leases, redo logs, page table.
  std::span<std::byte> fixed_regions() const;
  // The first run of pages in use at or after page number `first` (from 0), at most `most` long.
  // Empty: there is none. `end`: number of the page behind it.
  struct PageRun {
    std::span<std::byte> bytes;
    uint64_t end = 0;
  };
  PageRun next_pages_in_use(uint64_t first, uint64_t most) const;
  // Changes when pages are claimed or given back.
  uint64_t page_claims() const;
  // Of a worker that died within a burst: what the record's soft state was before. Nothing happens
  // if there is no such record.
  void restore_soft(uint32_t record_id, std::span<const uint8_t, kSoftStateBytes> state);
  uint64_t bytes() const;
  Persistence& persistence() const;

  // Calls `visit` for each live record of the chain. Safe beside running workers: a record that
  // changes while it is read is skipped or seen whole (it is copied and re-checked).
  void for_each_flow(uint32_t chain_index,
                     const std::function<bool(const FlowRecord&)>& visit) const;
  // Each record in use, those that are no flows (FlowPhase::kKeyed) included, with its id.
  void for_each_record(uint32_t chain_index,
                       const std::function<bool(uint32_t, const FlowRecord&)>& visit) const;
  uint64_t count_flows(uint32_t chain_index) const;  // from the bucket headers

  // port_leases(chain)[address * kPortBlocks + block] = bucket + 1, 0: free. Read by the switch to
  // steer packets from the outside; claimed by workers through PortLeases.
  const uint32_t* port_leases(uint32_t chain_index) const;

 private:
  friend class FlowTable;
  friend class RedoLog;
  struct Impl;
  explicit Pool(std::unique_ptr<Impl> impl);
  void finish_dropping_chains();
  void retire_records_of(uint32_t chain);
  bool for_each_record_of(uint32_t chain, uint32_t bucket,
                          const std::function<bool(uint32_t, const FlowRecord&)>& visit) const;
  std::unique_ptr<Impl> impl_;
};

}  // namespace flowkeep
