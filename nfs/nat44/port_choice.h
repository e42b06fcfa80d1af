// PortChoice: finds an external endpoint for a new mapping.
//
// An external endpoint is free exactly when no mapping of its protocol has it: the flow table is
// the allocator, and no port is ever shared (RFC 4787 REQ-3). The choice follows from the
// configuration, the leases, the table and the time alone, so that any worker chooses the same; and
// from keyed hashes, so that nobody outside can guess it (RFC 6056, RFC 7857 section 9).
//
// A search is bounded, because a flood of new mappings against full ports must not buy one of all
// ports for each packet. First a few ports of many units are asked for; what is left of the search
// is a window of whole units. It moves on each second, so that whoever asks again comes to every
// port, and where there are no more ports than kMostProbes, each search sees all of them.
//
// Thread rule: one worker; lives for one new mapping.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

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
  // Ports of whole units that a search asks the table for, at most.
  static constexpr uint32_t kMostProbes = 1024;
  // Besides them, in each address or block: a few ports in each of so many units.
  static constexpr uint32_t kQuickUnits = 16;
  static constexpr uint32_t kQuickProbes = 4;

  PortChoice(const Nat44Settings& settings, AnyNewFlow& flow)
      : settings_(settings), flow_(flow), hash_(flow.hash_inside_endpoint()) {}

  // Among the ports that hosts share. Nothing: none was found.
  std::optional<Endpoint> shared();
  // Among these units alone; the blocks are of one size.
  std::optional<Endpoint> within(const PortUnits& units) { return within({&units, 1}); }
  std::optional<Endpoint> within(std::span<const PortUnits> blocks);

  // The address that the host's mappings are paired with (RFC 4787 REQ-2).
  uint32_t paired_address() const;
  // Of ports that it has asked the table for.
  uint32_t probes() const { return probes_; }

 private:
  enum class Effort { kQuick, kThorough };

  std::optional<Endpoint> preserved(uint32_t address);
  std::optional<Endpoint> on_address(uint32_t address, uint32_t most_units);
  std::optional<Endpoint> in_held_units(uint32_t address, uint32_t start, Effort effort,
                                        uint32_t most_units);
  std::optional<Endpoint> in_new_unit(uint32_t address);
  std::optional<Endpoint> in_units(std::span<const PortUnits> blocks, uint32_t start, Effort effort,
                                   uint32_t most_units);
  std::optional<Endpoint> in_unit(uint32_t address, uint32_t unit, Effort effort);
  // Where among `places` a search of a few of them begins.
  uint32_t start(uint32_t places) const;
  uint32_t start_now(uint32_t places, uint32_t searched) const;
  bool hold(uint32_t address, uint32_t unit);
  bool is_free(const Endpoint& external);

  const Nat44Settings& settings_;
  AnyNewFlow& flow_;
  const uint64_t hash_;
  uint32_t probes_ = 0;
};

}  // namespace flowkeep
