// PortChoice: finds an external endpoint for a new mapping.
//
// An external endpoint is free exactly when no mapping of its protocol has it: the flow table is
// the allocator, and no port is ever shared (RFC 4787 REQ-3). The choice follows from the
// configuration, the leases and the table alone, so that any worker chooses the same; and from
// keyed hashes, so that nobody outside can guess it (RFC 6056, RFC 7857 section 9).
//
// Thread rule: one worker; lives for one new mapping.
#pragma once

#include <cstdint>
#include <optional>

#include "nfs/function.h"
#include "nfs/nat44/settings.h"

namespace flowkeep {

// Key of the answers to an inside endpoint's packets that leave with this source.
inline FlowKey translated_key(const FlowKey& inside, const Endpoint& external) {
  FlowKey translated = inside;
  translated.src = external.address;
  translated.src_port = external.port;
  return translated.reversed();
}

class PortChoice {
 public:
  PortChoice(const Nat44Settings& settings, AnyNewFlow& flow)
      : settings_(settings), flow_(flow), hash_(flow.hash_inside_endpoint()) {}

  // Among the ports that hosts share. Nothing: all are taken.
  std::optional<Endpoint> shared();
  // Among these units alone.
  std::optional<Endpoint> within(const PortUnits& units);

  // The address that the host's mappings are paired with (RFC 4787 REQ-2).
  uint32_t paired_address() const;

 private:
  enum class Effort { kQuick, kThorough };

  std::optional<Endpoint> on_address(uint32_t address);
  std::optional<Endpoint> preserved(uint32_t address);
  std::optional<Endpoint> in_unit(uint32_t address, uint32_t unit, Effort effort);
  bool hold(uint32_t address, uint32_t unit);
  bool is_free(const Endpoint& external) const;

  const Nat44Settings& settings_;
  AnyNewFlow& flow_;
  const uint64_t hash_;
};

}  // namespace flowkeep
