// Units of 64 external ports: what buckets lease, because a packet from the outside finds its
// bucket by the unit of its destination port alone.
#pragma once

#include <cstdint>

#include "state/pool.h"

namespace flowkeep {

inline constexpr auto kUnitPorts = static_cast<uint32_t>(kPortBlockPorts);
inline constexpr auto kFirstUnit = static_cast<uint32_t>(kFirstLeasedBlock);
inline constexpr uint32_t kFirstLeasedPort = kFirstUnit * kUnitPorts;

constexpr uint32_t unit_of(Be16 port) {
  return port.host() / kUnitPorts;
}

// The units that each external address offers.
struct UnitRange {
  uint32_t first = kFirstUnit;
  uint32_t count = static_cast<uint32_t>(kPortBlocks) - kFirstUnit;
  bool contains(uint32_t unit) const { return unit - first < count; }
};

// Units of one external address.
struct PortUnits {
  uint32_t address = 0;  // index
  uint32_t first = 0;
  uint32_t count = 0;
  uint32_t last_port() const { return (first + count) * kUnitPorts - 1; }
  bool contains(uint32_t address_index, uint32_t unit) const {
    return address_index == address && unit - first < count;
  }
};

}  // namespace flowkeep
