// Deterministic port blocks (RFC 7422): an inside host's external address and ports follow from its
// own address, and the host follows from them. Nothing need be logged to know who used a port.
//
// The hosts of the inside prefix are numbered from 0 and dealt to the external addresses in
// ascending order, as evenly as it goes:
//
//   hosts_per_address = ceil(hosts / addresses)
//   units_per_host    = floor(units / hosts_per_address)          a unit is 64 ports
//   address           = number / hosts_per_address
//   first unit        = first of the range + number % hosts_per_address * units_per_host
//
// Thread rule: immutable.
#pragma once

#include <cstdint>
#include <optional>

#include "nfs/ipv4_prefix.h"
#include "nfs/nat44/port_units.h"

namespace flowkeep {

class DeterministicMap {
 public:
  // Nothing if there are more hosts than the addresses have units.
  static std::optional<DeterministicMap> of(Ipv4Prefix inside, uint32_t addresses, UnitRange range);

  // Nothing if the host is not in the prefix.
  std::optional<PortUnits> units_of(Be32 host) const;
  // Nothing if the port is nobody's.
  std::optional<Be32> host_of(uint32_t address_index, Be16 port) const;
  uint32_t ports_per_host() const { return units_per_host_ * kUnitPorts; }

 private:
  DeterministicMap(Ipv4Prefix inside, UnitRange range, uint64_t hosts, uint32_t addresses);

  Ipv4Prefix inside_;
  UnitRange range_;
  uint64_t hosts_;
  uint64_t hosts_per_address_;
  uint32_t units_per_host_;
};

}  // namespace flowkeep
