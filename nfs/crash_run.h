// CrashRun: a recorded run of a firewall and nat44 chain, with what an observer outside of the pool
// knows of it: for each burst what it changed, and when its packets left.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "nfs/chain.h"
#include "state/flow_record.h"
#include "state/persistence_recording.h"

namespace flowkeep {

// How far a burst has got, as marks in the recording say it.
enum class BurstMark : uint8_t {
  kBegun,      // from now on it may be seen in an image
  kCommitted,  // commit() has returned: from now on it must be
  kPublished,  // its packets have left: the same
  kEnded,      // everything of it is home
  kTakenBack,  // its worker died before it was committed: it is never seen any more
};
constexpr uint64_t burst_mark(BurstMark mark, uint64_t burst) {
  return static_cast<uint64_t>(mark) << 32 | burst;
}

struct BucketFlows {
  uint32_t bucket;
  std::vector<FlowRecord> flows;
};
struct PortLease {
  uint32_t address_index;
  uint32_t block;
  uint32_t bucket;
};
struct RecordedBurst {
  uint32_t log = 0;
  uint32_t revision = 0;
  uint32_t now_s = 0;
  std::vector<BucketFlows> after;   // of the buckets that it changed
  std::vector<PortLease> leases;    // that it took, committed or not
  std::vector<PortLease> released;  // that it gave back
};

struct CrashRun {
  static constexpr uint32_t kBuckets = 8;
  static constexpr uint64_t kPoolBytes = 5 << 20;

  std::vector<std::byte> start;  // the pool before the first operation
  std::vector<BucketFlows> start_flows;
  std::vector<PortLease> start_leases;
  std::vector<RecordedOperation> operations;
  std::vector<RecordedBurst> bursts;
  uint64_t packets = 0;
  uint64_t published = 0;
  uint64_t worker_deaths = 0;
  uint64_t handovers = 0;
  std::string fault;  // what went wrong without any crash; empty: nothing
};

struct CrashRunOptions {
  uint64_t seed = 1;
  uint32_t bursts = 40;                 // of both workers together
  uint32_t burst_packets = 12;          // at most
  uint64_t operations_in_a_life = 150;  // flushes and fences of a worker, on average
  uint32_t prefilled = 0;               // flows of bucket 0 before the recording begins
  bool split = false;                   // so many fewer than make its index split
};

// The chain that runs; odd and even revisions differ in a rule.
ChainSpec crash_run_chain(uint32_t revision);

// Runs it, in `directory`.
CrashRun record_crash_run(const CrashRunOptions& options, const std::string& directory);

}  // namespace flowkeep
