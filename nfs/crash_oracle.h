// RunOracle: judges recovered pools by what is known of a recorded run.
//
// For each log the pool must hold the state after one burst n, the last that had left the node or
// was committed at the cut, or the one begun after it, whole. In every other respect it must be a
// pool between two bursts: each flow is found by both of its keys, each page is accounted for, each
// lease that a flow relies on is there and none is that nobody took. And the run must be able to go
// on from it: open flows pass with the translation that they had, new ones can be opened.
//
// Thread rule: one thread.
#pragma once

#include <array>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "nfs/crash_run.h"
#include "state/crash_simulator.h"

namespace flowkeep {

class RunOracle : public CrashOracle {
 public:
  using FlowKeyBytes = std::array<uint8_t, sizeof(FlowKey)>;

  // The run must outlive the oracle.
  explicit RunOracle(const CrashRun& run);
  ~RunOracle() override;

  void reached(uint64_t mark) override;
  std::string check(Pool& pool) override;
  std::string go_on(Pool& pool, uint64_t seed) override;

 private:
  struct Facts {  // of a bucket's records; equal facts: equal records, soft words aside
    uint64_t flows = 0;
    uint64_t sum = 0;  // of the flows' hashes
    friend bool operator==(const Facts&, const Facts&) = default;
  };
  struct Log {
    const RecordedBurst* burst = nullptr;           // begun and not ended
    std::vector<std::pair<uint32_t, Facts>> after;  // of the buckets that it changes
    bool required = false;                          // committed, or its packets have left
  };
  using LeaseKey = std::pair<uint32_t, uint32_t>;  // address index, block
  struct Lease {
    uint32_t bucket;
    bool required;
    std::set<uint32_t> before{};  // buckets that had it and gave it back, maybe not for good
  };
  using Found = std::array<Facts, CrashRun::kBuckets>;

  static Facts facts_of(const std::vector<FlowRecord>& flows);
  static uint64_t hash_of(const FlowRecord& flow);
  std::string check_flows(Pool& pool, Found& found);
  static std::string check_users(const std::vector<FlowRecord>& hosts,
                                 std::map<FlowKeyBytes, uint32_t> guests);
  std::string check_bursts(const Found& found) const;
  std::string check_pages(const Pool& pool) const;
  std::string check_leases(const Pool& pool) const;
  std::string check_lease_of(const FlowRecord& flow);
  const Chain& chain(uint32_t revision);

  const CrashRun& run_;
  Found settled_ = {};  // after the last ended burst of each bucket's owner
  std::array<Log, 2> logs_;
  std::map<LeaseKey, Lease> leases_;
  uint32_t revision_ = 1;
  uint32_t now_s_ = 0;
  std::map<uint32_t, std::unique_ptr<Chain>> chains_;
};

}  // namespace flowkeep
