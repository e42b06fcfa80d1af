// Nat44Settings: the configuration of a nat44, checked, in the terms of its parts.
//
// Thread rule: immutable.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "nfs/nat44/deterministic.h"
#include "nfs/nat44/forwards.h"
#include "nfs/nat44/nat44.pb.h"
#include "nfs/nat44/port_units.h"
#include "nfs/nat44/untranslated.h"
#include "state/result.h"

namespace flowkeep {

// RFC 4787 section 5.
enum class Filtering : uint8_t {
  kEndpointIndependent,
  kAddressDependent,
  kAddressAndPortDependent,
};
enum class Pooling : uint8_t { kPaired, kPairedIfPossible };

// Port blocks of subscribers (RFC 6888 REQ-14).
struct BlockPlan {
  uint32_t units;  // of a block
  uint32_t most;   // blocks of a host
};
inline constexpr uint32_t kMostBlocksOfHost = 16;
inline constexpr int kMostUntranslated = 64;  // few, so that a search does

struct Nat44Settings {
  std::vector<Be32> addresses;  // ascending: in the order of the port leases' address index
  UnitRange range;
  Filtering filtering = Filtering::kAddressAndPortDependent;
  Pooling pooling = Pooling::kPaired;
  bool preserve_ports = false;
  std::optional<BlockPlan> blocks;
  std::optional<DeterministicMap> deterministic;
  Forwards forwards;
  std::vector<UntranslatedDestination> untranslated;
  uint32_t mappings_per_host = 0;  // 0: no limit

  std::optional<uint32_t> index_of(Be32 address) const;
  // Is the flow one that is not translated? `inside`: its key as its inside host has it.
  bool leaves_alone(const FlowKey& inside) const;
  // Is something counted for each host?
  bool counts_hosts() const { return blocks.has_value() || mappings_per_host != 0; }
};

// Errors name the field below `field`, its value and what is accepted.
Result<Nat44Settings> read_nat44_settings(const nfs::Nat44Config& config, const std::string& field);

}  // namespace flowkeep
