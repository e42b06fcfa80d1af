#include "nfs/nat44/port_choice.h"

#include <algorithm>

namespace flowkeep {
namespace {

// Ports of the right parity that are tried in each unit before another one is leased.
constexpr uint32_t kQuickProbes = 4;
// A flood of new mappings against full ports must not buy a search of all of them for each packet.
constexpr uint32_t kMostUnitsSearched = 16;

// Neighbouring buckets begin 4 units apart, which spreads 256 buckets over an address.
uint32_t candidate(uint32_t bucket, uint32_t rank, UnitRange range) {
  return range.first + (bucket * 4 + rank) % range.count;
}

// Order in which a unit's ports are tried: from a start that depends on the endpoint, those with
// the inside port's parity first (RFC 4787 REQ-4).
uint32_t probe_offset(uint64_t hash, Be16 inside_port, uint32_t probe) {
  const auto start = static_cast<uint32_t>(hash >> 32) & (kUnitPorts - 2);
  const uint32_t parity = (inside_port.host() ^ (probe >= kUnitPorts / 2 ? 1U : 0U)) & 1U;
  return ((start + 2 * probe) & (kUnitPorts - 2)) | parity;
}

}  // namespace

uint32_t PortChoice::paired_address() const {
  return static_cast<uint32_t>(flow_.hash_inside_host() % settings_.addresses.size());
}

std::optional<Endpoint> PortChoice::shared() {
  const auto count = static_cast<uint32_t>(settings_.addresses.size());
  const uint32_t tried = settings_.pooling == Pooling::kPaired ? 1 : count;
  for (uint32_t i = 0; i < tried; ++i) {
    const uint32_t address = (paired_address() + i) % count;
    if (const auto external = preserved(address)) return external;
    if (const auto external = on_address(address)) return external;
  }
  return std::nullopt;
}

// The inside port itself.
std::optional<Endpoint> PortChoice::preserved(uint32_t address) {
  if (!settings_.preserve_ports) return std::nullopt;
  const Endpoint wanted{settings_.addresses[address], flow_.inside_key().src_port, {}};
  const uint32_t unit = unit_of(wanted.port);
  if (!settings_.range.contains(unit) || !hold(address, unit) || !is_free(wanted)) {
    return std::nullopt;
  }
  return wanted;
}

// Each bucket walks the units in an order of its own: it looks into those that it holds, and takes
// the first that nobody does.
std::optional<Endpoint> PortChoice::on_address(uint32_t address) {
  const UnitRange range = settings_.range;
  const auto bucket = static_cast<int32_t>(flow_.bucket());
  for (const Effort effort : {Effort::kQuick, Effort::kThorough}) {
    uint32_t searched = 0;
    for (uint32_t rank = 0; rank < range.count && searched < kMostUnitsSearched; ++rank) {
      const uint32_t unit = candidate(flow_.bucket(), rank, range);
      const int32_t owner = flow_.lease_owner(address, unit);
      const bool is_new = owner < 0 && hold(address, unit);
      if (owner != bucket && !is_new) continue;
      ++searched;
      if (const auto external = in_unit(address, unit, is_new ? Effort::kThorough : effort)) {
        return external;
      }
    }
  }
  return std::nullopt;
}

std::optional<Endpoint> PortChoice::within(const PortUnits& units) {
  const auto start = static_cast<uint32_t>(hash_ >> 40) % units.count;
  for (const Effort effort : {Effort::kQuick, Effort::kThorough}) {
    const uint32_t searched = std::min(units.count, kMostUnitsSearched);
    for (uint32_t i = 0; i < (effort == Effort::kQuick ? searched : units.count); ++i) {
      const uint32_t unit = units.first + (start + i) % units.count;
      if (!hold(units.address, unit)) continue;
      if (const auto external = in_unit(units.address, unit, effort)) return external;
    }
  }
  return std::nullopt;
}

std::optional<Endpoint> PortChoice::in_unit(uint32_t address, uint32_t unit, Effort effort) {
  const uint32_t probes = effort == Effort::kQuick ? kQuickProbes : kUnitPorts;
  for (uint32_t probe = 0; probe < probes; ++probe) {
    const uint32_t offset = probe_offset(hash_, flow_.inside_key().src_port, probe);
    const auto port = static_cast<uint16_t>(unit * kUnitPorts + offset);
    const Endpoint external{settings_.addresses[address], Be16::from_host(port), {}};
    if (is_free(external)) return external;
  }
  return std::nullopt;
}

// Is the unit the bucket's, from now on at the latest?
bool PortChoice::hold(uint32_t address, uint32_t unit) {
  return flow_.lease_acquire(address, unit) ||
         flow_.lease_owner(address, unit) == static_cast<int32_t>(flow_.bucket());
}

bool PortChoice::is_free(const Endpoint& external) const {
  const uint8_t protocol = flow_.inside_key().protocol;
  if (settings_.forwards.to_external(protocol, external.address, external.port) != nullptr) {
    return false;
  }
  return flow_.outside_endpoint_free(translated_key(flow_.inside_key(), external));
}

}  // namespace flowkeep
